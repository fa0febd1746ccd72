// The drawing over a picture: it is laid over its picture, its labels keep their size, and a face and its lines in
// the list light up together.
"use strict";

{
  const GAP = 4;

  /** Give the labels of a drawing the size of the page's text, and keep them within the picture. */
  const place = (svg) => {
    const { width, height } = svg.viewBox.baseVal;
    const pixel = width / svg.getBoundingClientRect().width; // of the page, in pixels of the picture
    if (!Number.isFinite(pixel)) return;
    svg.style.setProperty("--pixel", pixel);
    svg.classList.add("placed");
    for (const face of svg.querySelectorAll(".face")) {
      const [text, back, box] = ["text", ".tag rect", ".box"].map((name) => face.querySelector(name));
      const gap = GAP * pixel, high = 20 * pixel;
      // Beside others a long name would cover them: the number is enough, until the face lights up.
      const fits = () => text.getComputedTextLength() + 2 * gap <= Math.max(1.1 * box.width.baseVal.value, high);
      face.classList.remove("narrow");
      face.classList.toggle("narrow", svg.querySelectorAll(".face").length > 1 && !face.matches(".lit") && !fits());
      const wide = text.getComputedTextLength() + 2 * gap;
      const top = box.y.baseVal.value, left = box.x.baseVal.value;
      const y = top < high ? Math.min(top + box.height.baseVal.value, height - high) : top - high;
      const x = Math.max(0, Math.min(left, width - wide));
      for (const [name, value] of Object.entries({ x, y, width: wide, height: high })) back.setAttribute(name, value);
      text.setAttribute("x", x + gap);
      text.setAttribute("y", y + 14.5 * pixel);
    }
  };
  const sizes = new ResizeObserver((entries) => entries.forEach((entry) => place(entry.target)));

  /** Lay the drawing of a result over the picture of the same `.shown` element. */
  facerec.layOver = (shown) => {
    const picture = shown.querySelector(".picture");
    const drawing = shown.querySelector(".outcome .overlay, .facts .overlay");
    if (!drawing) return;
    picture.append(drawing);
    sizes.observe(drawing);
  };

  /** Say in place of a picture that the browser cannot show it. */
  facerec.watchPicture = (image) => {
    const failed = () => image.parentElement.classList.add("no-picture");
    if (image.complete && image.src && !image.naturalWidth) failed();
    image.addEventListener("error", failed);
  };

  const light = (event) => {
    const face = event.target.closest?.("[data-face]");
    if (event.type !== "focusout" && face?.matches(".lit")) return;
    const changed = new Set();
    const turn = (each, on) => {
      each.classList.toggle("lit", on);
      if (each.closest(".overlay")) changed.add(each.closest(".overlay"));
    };
    for (const lit of document.querySelectorAll("[data-face].lit")) turn(lit, false);
    if (face && event.type !== "focusout") {
      for (const each of face.closest(".shown").querySelectorAll(`[data-face="${face.dataset.face}"]`)) turn(each, true);
    }
    changed.forEach(place);
  };
  for (const name of ["mouseover", "focusin", "focusout"]) document.addEventListener(name, light);

  document.addEventListener("click", (event) => {
    const face = event.target.closest(".shown [data-face]");
    const shown = face?.closest(".shown");
    if (event.target.closest("button.verdict")) shown.querySelector(".picture").scrollIntoView({ block: "nearest" });
    else if (face?.closest("svg")) shown.querySelector(`li[data-face="${face.dataset.face}"] button.verdict`).focus();
  });

  document.addEventListener("DOMContentLoaded", () => {
    for (const shown of document.querySelectorAll("main .shown")) {
      facerec.watchPicture(shown.querySelector("img"));
      facerec.layOver(shown);
    }
  });
}
