// Enrolment: each chosen photo is sent once, to be checked; what is saved is the photo of that request.
"use strict";

document.addEventListener("DOMContentLoaded", () => {
  const AT_ONCE = 3;
  const list = document.getElementById("enrol-photos");
  const name = document.getElementById("enrol-name");
  const hint = document.getElementById("enrol-hint");
  const all = document.getElementById("enrol-all");
  const waiting = [];
  let running = 0;

  /** Draw the boxes of a check over its photo, and count. */
  const settle = () => {
    for (const card of list.children) {
      const boxes = card.querySelector(".enrol-check svg.boxes");
      const saved = card.querySelector('[data-state="saved"]');
      if (boxes || saved) card.querySelector(".shot svg.boxes")?.remove();
      if (boxes) card.querySelector(".shot").append(boxes);
    }
    const count = (state) => list.querySelectorAll(`[data-state="${state}"]`).length;
    for (const [element, n] of [[all.querySelector("p"), count("saved")], [all.querySelector("button"), count("good")]]) {
      const text = n === 1 ? element.dataset.one : element.dataset.many;
      element.textContent = n ? text.replace("{n}", n.toLocaleString()) : "";
      element.hidden = n === 0;
    }
    all.hidden = list.children.length < 2;
  };

  const put = (card, element) => {
    card.querySelector(".enrol-state").replaceChildren(element);
    htmx.process(element);
    facerec.localise(element);
    settle();
  };

  const fail = (card, sentence, again) => {
    const shown = document.getElementById("enrol-failed").content.firstElementChild.cloneNode(true);
    shown.querySelector("p").textContent = sentence;
    shown.querySelector("[data-again]").addEventListener("click", again);
    put(card, shown);
  };

  const check = async (card, file) => {
    const form = new FormData();
    form.append("name", name.value);
    form.append("file", file, file.name);
    try {
      const response = await facerec.fetch(list.dataset.check, { method: "POST", body: form });
      const text = await response.text();
      if (!response.ok) return fail(card, text, () => begin(card, file));
      const holder = document.createElement("template");
      holder.innerHTML = text;
      put(card, holder.content.firstElementChild);
    } catch {
      fail(card, document.body.dataset.failed, () => begin(card, file));
    }
  };

  const next = () => {
    while (running < AT_ONCE && waiting.length) {
      const [card, file] = waiting.shift();
      if (!card.isConnected) continue;
      running += 1;
      check(card, file).finally(() => { running -= 1; next(); });
    }
  };

  const fresh = () => document.getElementById("enrol-new").content.firstElementChild.cloneNode(true);

  const begin = (card, file) => {
    put(card, fresh().querySelector(".enrol-state > *"));
    waiting.push([card, file]);
    next();
  };

  facerec.photos(document.querySelector(".photo-zone"), (files) => {
    for (const file of files) {
      const card = fresh();
      facerec.preview(card.querySelector(".shot"), file);
      list.append(card);
      begin(card, file);
    }
  });

  list.addEventListener("click", (event) => {
    const card = event.target.closest(".enrol-photo");
    if (event.target.closest("[data-remove]")) {
      card.remove();
      settle();
      name.focus();
      return;
    }
    const box = event.target.closest(".shot [data-face]");
    if (box) card.querySelector(`button[data-face="${box.dataset.face}"]`)?.click();
  });

  list.addEventListener("htmx:beforeRequest", (event) => {
    if (!event.target.matches("form[data-named]") || name.value.trim()) return;
    event.preventDefault();
    hint.textContent = hint.dataset.needed;
    hint.classList.add("bad");
    name.focus();
  });
  // When the name changes, each photo is judged again. Who has saved it meanwhile, or chosen another face, keeps that.
  list.addEventListener("htmx:beforeSwap", (event) => {
    const judged = event.detail.requestConfig.elt;
    if (judged.matches(".enrol-check") && !judged.isConnected) event.detail.shouldSwap = false;
  });
  document.addEventListener("enrol-name", () => {
    hint.classList.remove("bad");
    if (hint.querySelector("[data-invalid]")) name.setAttribute("aria-invalid", "true");
    else name.removeAttribute("aria-invalid");
  });

  all.querySelector("button").addEventListener("click", () => {
    for (const button of list.querySelectorAll('[data-state="good"] form[data-named] button')) button.click();
  });

  document.addEventListener("htmx:load", settle);
  settle();
});
