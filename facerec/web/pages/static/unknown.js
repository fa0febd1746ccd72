// Was this face here before? The photo is searched among unknown people, and not kept as a sight.
"use strict";

document.addEventListener("DOMContentLoaded", () => {
  const zone = document.querySelector(".photo-zone");
  if (!zone) return;
  const place = document.getElementById("unknown-found");

  const show = (card, html) => {
    const answer = card.querySelector("[data-answer]");
    answer.innerHTML = html;
    const boxes = answer.querySelector("svg.boxes");
    if (boxes) card.querySelector(".shot").append(boxes);
    facerec.localise(answer);
  };

  const refuse = (card, sentence) => {
    const line = document.createElement("p");
    line.className = "bad";
    line.textContent = sentence;
    card.querySelector("[data-answer]").replaceChildren(line);
  };

  facerec.photos(zone, async ([file]) => {
    document.getElementById("unknown-search").open = true;
    const card = document.getElementById("unknown-asked").content.firstElementChild.cloneNode(true);
    facerec.preview(card.querySelector(".shot"), file);
    place.replaceChildren(card);
    const form = new FormData();
    form.append("file", file, file.name);
    try {
      const response = await facerec.fetch(place.dataset.search, { method: "POST", body: form });
      const text = await response.text();
      if (response.ok) show(card, text);
      else refuse(card, text);
    } catch {
      refuse(card, document.body.dataset.failed);
    }
  });
});
