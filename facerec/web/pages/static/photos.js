// Photos from the picker, a drop, the clipboard or the camera: `facerec.photos(zone, take)`.
"use strict";

/**
 * Call `take(files)` with the pictures that a reader chooses, drops, pastes or takes; see `photos.html` for the zone.
 * A zone whose input is not `multiple` takes the first one.
 */
facerec.photos = (zone, take) => {
  const input = zone.querySelector("input[type=file]");
  const dialog = zone.querySelector("dialog");
  const video = zone.querySelector("video");
  const opener = zone.querySelector("[data-camera]");

  const give = (files) => {
    const pictures = [...files].filter((file) => !file.type || file.type.startsWith("image/"));
    if (pictures.length) take(input.multiple ? pictures : pictures.slice(0, 1));
    else if (files.length) facerec.say(zone.dataset.noPhoto);
  };

  input.addEventListener("change", () => {
    give([...input.files]);
    input.value = ""; // so that the same file can be chosen again
  });

  let within = 0;
  const carriesFiles = (event) => event.dataTransfer?.types.includes("Files");
  // A drop beside the zone would open the photo in place of the page.
  for (const name of ["dragover", "drop"]) {
    document.addEventListener(name, (event) => { if (carriesFiles(event)) event.preventDefault(); });
  }
  document.addEventListener("dragenter", (event) => {
    if (carriesFiles(event)) zone.classList.toggle("over", ++within > 0);
  });
  document.addEventListener("dragleave", (event) => {
    if (carriesFiles(event)) zone.classList.toggle("over", --within > 0);
  });
  document.addEventListener("drop", (event) => {
    if (!carriesFiles(event)) return;
    within = 0;
    zone.classList.remove("over");
    give([...event.dataTransfer.files]);
  });

  document.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (!files.length) return;
    event.preventDefault();
    give(files);
  });

  opener.hidden = !navigator.mediaDevices?.getUserMedia; // browsers have it on HTTPS and on this machine only
  opener.addEventListener("click", async () => {
    try {
      video.srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "user", width: 1280 } });
      dialog.showModal();
    } catch {
      facerec.say(zone.dataset.noCamera);
    }
  });
  dialog.addEventListener("close", () => {
    for (const track of video.srcObject?.getTracks() ?? []) track.stop();
    video.srcObject = null;
  });
  dialog.querySelector("[data-close]").addEventListener("click", () => dialog.close());
  dialog.querySelector("[data-shoot]").addEventListener("click", () => {
    if (!video.videoWidth) return; // the first frame has not come
    const canvas = document.createElement("canvas");
    canvas.width = video.videoWidth;
    canvas.height = video.videoHeight;
    canvas.getContext("2d").drawImage(video, 0, 0);
    canvas.toBlob((blob) => give([new File([blob], "camera.jpg", { type: "image/jpeg" })]), "image/jpeg", 0.92);
    dialog.close();
  });
};
