// The person page: dialogs, the form of a new name, and the arrow keys of the large view.
"use strict";

document.addEventListener("DOMContentLoaded", () => {
  const dialog = document.getElementById("dialog");

  document.addEventListener("click", (event) => {
    const on = (attribute) => event.target.closest?.(`[${attribute}]`);
    let button;
    if ((button = on("data-shows"))) showForm(button.dataset.shows, true);
    else if ((button = on("data-hides"))) showForm(button.dataset.hides, false);
    else if (event.target.matches("dialog")) event.target.close(); // beside its content
  });

  document.addEventListener("keydown", (event) => {
    const form = event.target.closest?.("form[id]");
    if (event.key === "Escape" && form && opener(form.id)) showForm(form.id, false);
    if (!dialog.open || event.target.matches("input")) return;
    if (event.key === "ArrowLeft") document.getElementById("photo-previous")?.click();
    if (event.key === "ArrowRight") document.getElementById("photo-next")?.click();
  });

  document.addEventListener("submit", (event) => {
    if (event.target.matches("[data-inert]")) event.preventDefault();
  });

  document.addEventListener("htmx:afterSwap", (event) => {
    if (event.detail.target === dialog && !dialog.open) dialog.showModal();
  });
  document.addEventListener("htmx:beforeSwap", (event) => {
    if (event.detail.target.id === "view" && dialog.open) dialog.close();
  });
  // What it showed must not flash when it opens for something else, and its ids are gone.
  dialog.addEventListener("close", () => dialog.replaceChildren());

  function opener(id) {
    return document.querySelector(`[data-shows="${id}"]`);
  }

  function showForm(id, shown) {
    const form = document.getElementById(id);
    form.hidden = !shown;
    opener(id).setAttribute("aria-expanded", String(shown));
    if (shown) form.querySelector("input").select();
    else opener(id).focus();
  }
});
