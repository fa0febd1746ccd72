// Chosen photos as the worker sees them: browsers show a turned WebP as it is stored, the worker turns it as its EXIF says.
"use strict";

{
  const ORIENTATION = 0x0112; // EXIF 2.3, section 4.6.4
  const FIRST_TURNED = 5; // from here on the sides are exchanged

  /** Return the matrix of a canvas for each orientation of a picture of this size. */
  const turns = (width, height) => ({
    2: [-1, 0, 0, 1, width, 0],
    3: [-1, 0, 0, -1, width, height],
    4: [1, 0, 0, -1, 0, height],
    5: [0, 1, 1, 0, 0, 0],
    6: [0, 1, -1, 0, height, 0],
    7: [0, -1, -1, 0, height, width],
    8: [0, -1, 1, 0, 0, width],
  });

  const name = (view, at) => String.fromCharCode(...[0, 1, 2, 3].map((each) => view.getUint8(at + each)));

  /** Return the orientation that a TIFF block at this place has; 1 without one. */
  const ofTiff = (view, start) => {
    const little = view.getUint16(start) === 0x4949;
    const first = start + view.getUint32(start + 4, little);
    for (let entry = 0; entry < view.getUint16(first, little); entry += 1) {
      const at = first + 2 + 12 * entry;
      if (view.getUint16(at, little) === ORIENTATION) return view.getUint16(at + 8, little);
    }
    return 1;
  };

  /** Return the orientation of a WebP file (RFC 9649, section 2.7). */
  const orientation = (view) => {
    for (let at = 12; at + 8 <= view.byteLength;) {
      const size = view.getUint32(at + 4, true);
      if (name(view, at) === "EXIF") return ofTiff(view, at + 8 + (name(view, at + 8) === "Exif" ? 6 : 0));
      at += 8 + size + (size % 2);
    }
    return 1;
  };

  /** Resolve to what shows a photo upright: the photo itself, or a copy that is turned. */
  facerec.upright = async (photo) => {
    if (photo.type !== "image/webp") return photo;
    try {
      const turned = orientation(new DataView(await photo.arrayBuffer()));
      if (!(turned in turns(0, 0))) return photo;
      const picture = await createImageBitmap(photo, { imageOrientation: "none" });
      const canvas = document.createElement("canvas");
      const sides = [picture.width, picture.height];
      [canvas.width, canvas.height] = turned < FIRST_TURNED ? sides : sides.reverse();
      const pen = canvas.getContext("2d");
      pen.setTransform(...turns(picture.width, picture.height)[turned]);
      pen.drawImage(picture, 0, 0);
      return await new Promise((done) => { canvas.toBlob((copy) => done(copy ?? photo)); });
    } catch {
      return photo; // it is damaged: the worker says so
    }
  };

  /** Show a chosen photo in the picture of a `.shot` element; its name stands for one that the browser cannot show. */
  facerec.preview = async (shot, photo) => {
    const picture = shot.querySelector("img");
    picture.alt = photo.name;
    picture.addEventListener("error", () => shot.classList.add("no-picture"));
    const url = URL.createObjectURL(await facerec.upright(photo));
    // A picture that is drawn needs its address no more.
    for (const end of ["load", "error"]) picture.addEventListener(end, () => URL.revokeObjectURL(url));
    picture.src = url;
  };
}
