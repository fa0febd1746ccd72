// What several views use: requests with the CSRF token, messages, texts with values, dialogs, dropped files, and times
// and numbers in the reader's format.
"use strict";

const facerec = {
  /** Return the headers of a request of a page. */
  headers() {
    return { "HX-Request": "true", "X-CSRF-Token": document.querySelector("meta[name=csrf-token]").content };
  },

  /** Send a request of a page; resolves to the response, also of an error. After the end of a session the sign-in opens. */
  async fetch(url, options = {}) {
    const response = await fetch(url, { ...options, headers: { ...facerec.headers(), ...options.headers } });
    const elsewhere = response.headers.get("HX-Redirect");
    if (!elsewhere) return response;
    location.assign(elsewhere);
    return new Promise(() => {});
  },

  /**
   * Post a form and call `progress(sent, all)` with bytes, which `fetch` does not tell; resolves to `{ status, text, header }`.
   * After the end of a session the sign-in opens.
   */
  upload(url, form, { progress, signal, headers = {} }) {
    return new Promise((resolve, reject) => {
      const request = new XMLHttpRequest();
      const header = (name) => request.getResponseHeader(name);
      request.open("POST", url);
      for (const [name, value] of Object.entries({ ...facerec.headers(), ...headers })) request.setRequestHeader(name, value);
      request.upload.addEventListener("progress", ({ loaded, total }) => progress(loaded, total));
      request.addEventListener("load", () => {
        resolve({ status: request.status, text: request.responseText, header });
        const elsewhere = header("HX-Redirect");
        if (elsewhere) setTimeout(() => location.assign(elsewhere)); // first the page learns that nothing is sent any more
      });
      request.addEventListener("error", () => reject(new TypeError("no connection")));
      signal.addEventListener("abort", () => { request.abort(); reject(signal.reason); });
      request.send(form);
    });
  },

  /** Show a sentence for a while; screen readers read it aloud. */
  say(sentence) {
    const toast = document.getElementById("toast");
    toast.textContent = sentence;
    toast.hidden = false;
    clearTimeout(facerec.silence);
    facerec.silence = setTimeout(() => { toast.hidden = true; }, 8000);
  },

  /** Return a text with its values, each in the place of its `{name}`. */
  fill(text, values) {
    return text.replace(/\{(\w+)\}/g, (_, name) => values[name]);
  },

  /** Return a number of bytes in kilobytes or megabytes. */
  size(bytes) {
    const [unit, value] = bytes < 1e6 ? ["kilobyte", bytes / 1e3] : ["megabyte", bytes / 1e6];
    return value.toLocaleString(undefined, { style: "unit", unit, maximumFractionDigits: value < 10 ? 1 : 0 });
  },

  /** Call `take(dataTransfer)` for files that are dropped anywhere on the page; while they hover, the element has the class `over`. */
  drops(element, take) {
    const withFiles = (name, act) => document.addEventListener(name, (event) => {
      if (event.dataTransfer?.types.includes("Files")) act(event);
    });
    let depth = 0; // of the elements that were entered and not left
    withFiles("dragenter", () => element.classList.toggle("over", ++depth > 0));
    withFiles("dragleave", () => element.classList.toggle("over", --depth > 0));
    // A browser would open the file in place of the page.
    withFiles("dragover", (event) => event.preventDefault());
    withFiles("drop", (event) => {
      event.preventDefault();
      depth = 0;
      element.classList.remove("over");
      take(event.dataTransfer);
    });
  },

  /** The element of a form, with the role `alert`, that shows why what was sent is refused. */
  errorPlace(element) {
    return element.closest("form")?.querySelector("[role=alert]");
  },

  /** Show why a request of htmx has failed: in its form, or for a while. */
  refuse(element, sentence) {
    const place = facerec.errorPlace(element);
    if (place) place.textContent = sentence;
    else facerec.say(sentence);
  },

  /** Write the times and numbers of an element as its reader's locale and zone have them. */
  localise(root) {
    const all = (selector) => [...(root.matches?.(selector) ? [root] : []), ...root.querySelectorAll(selector)];
    for (const time of all("time[datetime]:not([data-done])")) {
      const moment = new Date(time.dateTime);
      if (Number.isNaN(moment.valueOf())) continue;
      time.textContent = moment.toLocaleString(undefined, { dateStyle: "medium", timeStyle: time.dataset.seconds === undefined ? "short" : "medium" });
      time.title = moment.toLocaleString(undefined, { dateStyle: "full", timeStyle: "long" });
      time.dataset.done = "";
    }
    for (const data of all("data[value]:not([data-done])")) {
      const digits = data.dataset.digits;
      const options = data.dataset.percent === undefined ? {} : { style: "percent", maximumSignificantDigits: 3 };
      if (digits) Object.assign(options, { minimumFractionDigits: digits, maximumFractionDigits: digits });
      data.textContent = Number(data.value).toLocaleString(undefined, options);
      data.dataset.done = "";
    }
  },
};

document.addEventListener("htmx:configRequest", (event) => {
  Object.assign(event.detail.headers, facerec.headers());
});
document.addEventListener("click", (event) => {
  const opener = event.target.closest("[data-opens]");
  if (opener) document.getElementById(opener.dataset.opens).showModal();
  else if (event.target.closest("[data-closes]")) event.target.closest("dialog").close();
});
document.addEventListener("htmx:beforeRequest", (event) => {
  const place = facerec.errorPlace(event.target);
  if (place) place.textContent = "";
});
document.addEventListener("htmx:beforeSwap", ({ detail }) => {
  // htmx would take each element out by itself, after an event: a freeze where a thousand cards are replaced.
  if (detail.shouldSwap && detail.target.matches(".people-grid")) detail.target.replaceChildren();
});
document.addEventListener("htmx:responseError", (event) => facerec.refuse(event.target, event.detail.xhr.responseText));
document.addEventListener("htmx:sendError", (event) => facerec.refuse(event.target, document.body.dataset.failed));
document.addEventListener("htmx:load", (event) => facerec.localise(event.detail.elt));
document.addEventListener("DOMContentLoaded", () => facerec.localise(document));
