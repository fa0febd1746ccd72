// Jobs on the page: what is read again while one runs, and the end of a cancellation.
"use strict";

// A hidden tab does not ask.
document.addEventListener("htmx:beforeRequest", (event) => {
  if (document.hidden && event.target.matches("[data-poll]")) event.preventDefault();
});

// Screen readers are told at each quarter and at the end, not at each reading.
let step = document.getElementById("job-progress")?.dataset.step;
document.addEventListener("htmx:afterSwap", () => {
  const progress = document.getElementById("job-progress");
  if (!progress || progress.dataset.step === step) return;
  step = progress.dataset.step;
  document.getElementById("job-words").textContent = progress.dataset.words;
});

document.addEventListener("htmx:afterRequest", (event) => {
  const dialog = event.target.closest("dialog");
  if (!dialog || !event.detail.successful) return;
  dialog.close();
  document.getElementById("content").focus(); // the button that had opened it is gone
});
