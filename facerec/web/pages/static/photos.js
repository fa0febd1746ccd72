// Photos from the picker, a drop, the clipboard or the camera: `facerec.photos(zone, take)`.
"use strict";

/**
 * Call `take(files)` with the pictures that a reader chooses, drops, pastes or takes; see `photos.html` for the zone.
 * A zone whose input is not `multiple` takes the first one. With `any` it also takes files that are no pictures.
 */
facerec.photos = (zone, take, { any = false } = {}) => {
  const inputs = zone.querySelectorAll("input[type=file]"); // the second one opens the camera of a phone
  const input = inputs[0];
  const dialog = zone.querySelector("dialog");
  const video = zone.querySelector("video");
  const opener = zone.querySelector("[data-camera]");
  const cameras = zone.querySelector("select");

  const give = (files) => {
    const pictures = files.filter((file) => any || !file.type || file.type.startsWith("image/"));
    if (pictures.length) take(input.multiple ? pictures : pictures.slice(0, 1));
    else if (files.length) facerec.say(zone.dataset.noPhoto);
  };

  for (const each of inputs) {
    each.addEventListener("change", () => {
      give([...each.files]);
      each.value = ""; // so that the same file can be chosen again
    });
  }

  facerec.drops(zone, (dropped) => give([...dropped.files]));

  document.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (!files.length) return;
    event.preventDefault();
    give(files);
  });

  const stop = () => {
    for (const track of video.srcObject?.getTracks() ?? []) track.stop();
    video.srcObject = null;
  };
  const start = async (camera) => {
    stop();
    video.srcObject = await navigator.mediaDevices.getUserMedia({ video: { ...camera, width: { ideal: 1280 } } });
    const devices = (await navigator.mediaDevices.enumerateDevices()).filter((each) => each.kind === "videoinput");
    cameras.replaceChildren(...devices.map((each) => new Option(each.label, each.deviceId)));
    cameras.value = video.srcObject?.getVideoTracks()[0].getSettings().deviceId;
    cameras.closest("label").hidden = devices.length < 2;
  };
  const tryStart = async (camera, show = () => {}) => {
    try {
      await start(camera);
      show();
      if (!dialog.open) stop(); // it was closed before the camera was ready
    } catch {
      stop();
      dialog.close();
      facerec.say(zone.dataset.noCamera);
    }
  };

  opener.hidden = !navigator.mediaDevices?.getUserMedia; // browsers have it on HTTPS and on this machine only
  opener.addEventListener("click", () => tryStart({ facingMode: "user" }, () => dialog.showModal()));
  cameras.addEventListener("change", () => tryStart({ deviceId: { exact: cameras.value } }));
  dialog.addEventListener("close", stop);
  dialog.querySelector("[data-shoot]").addEventListener("click", () => {
    if (!video.videoWidth) return; // the first frame has not come
    const canvas = document.createElement("canvas");
    canvas.width = video.videoWidth;
    canvas.height = video.videoHeight;
    canvas.getContext("2d").drawImage(video, 0, 0);
    const name = `camera-${new Date().toTimeString().slice(0, 8).replaceAll(":", "-")}.jpg`;
    canvas.toBlob((blob) => give([new File([blob], name, { type: "image/jpeg" })]), "image/jpeg", 0.92);
    dialog.close();
  });
};
