// The form that begins a job: files, a folder or a zip, and their upload.
"use strict";

(() => {
  const form = document.getElementById("job-form");
  const texts = form.dataset;
  const find = (selector) => form.querySelector(selector);
  const [input, folder, error] = ["#job-files", "#job-folder-files", "#job-error"].map(find);
  const [chosen, sending, person] = ["#job-chosen", "#job-sending", "#job-person"].map(find);
  const [summary, names, warning] = ["[data-summary]", "[data-names]", "[data-warning]"].map(find);
  const NAMES = 8;
  const HIDDEN = /(^|\/)(\.[^/]*|__MACOSX\/.*|Thumbs\.db|desktop\.ini)$/;

  /** The choice: `{ file, path }`, where the path has the folders. */
  let files = [];
  /** Of the choice, so that a second click or another try begins no second job. */
  let key = "";
  let upload = null;

  const { fill, size } = facerec;
  const count = (n) => n.toLocaleString();
  const several = (name, n, values = {}) =>
    fill(n === 1 ? texts[`${name}One`] : texts[`${name}Other`], { n: count(n), ...values });

  const isZip = ({ path }) => path.toLowerCase().endsWith(".zip");
  const total = () => files.reduce((sum, { file }) => sum + file.size, 0);
  const folderOf = ({ path }) => path.split("/").at(-2) ?? "";
  const value = (name) => find(`[name=${name}]:checked`)?.value ?? find(`[name=${name}][type=hidden]`)?.value;
  const enrolsByFolder = () => value("operation") === "enrol" && value("whom") === "folder";

  const show = (element, text) => {
    element.textContent = text;
    element.hidden = !text;
  };

  /** Show the choice, and what will become of it. */
  const refresh = () => {
    error.textContent = "";
    const enrols = value("operation") === "enrol";
    const whom = find("#job-whom");
    if (whom) {
      whom.hidden = !enrols;
      person.hidden = value("whom") !== "person";
      person.querySelector("input").disabled = !enrols || person.hidden;
    }
    chosen.hidden = !files.length;
    if (!files.length) return;
    const zip = files.length === 1 && isZip(files[0]);
    summary.textContent = zip
      ? fill(texts.zip, { name: files[0].path, size: size(total()) })
      : several("chosen", files.length, { size: size(total()) });
    const large = zip ? 0 : files.filter(({ file }) => file.size > texts.photoBytes).length;
    const warnings = large ? [several("skipped", large, { most: size(texts.photoBytes) })] : [];
    let people = "";
    if (enrolsByFolder() && !zip) {
      const photos = new Map();
      for (const each of files) photos.set(folderOf(each), (photos.get(folderOf(each)) ?? 0) + 1);
      const loose = photos.get("") ?? 0;
      photos.delete("");
      if (loose) warnings.push(several("loose", loose));
      const shown = [...photos].slice(0, NAMES).map(([name, n]) => fill(texts.person, { name, n: count(n) })).join(", ");
      const more = photos.size > NAMES ? fill(texts.more, { names: shown, n: count(photos.size - NAMES) }) : shown;
      if (photos.size) people = several("people", photos.size, { names: more });
    }
    show(names, people);
    show(warning, warnings.join(" "));
  };

  const changed = () => {
    key = "";
    refresh();
  };

  /** Add to the choice; a zip and photos replace each other. */
  const add = (added) => {
    const kept = added.filter(({ path }) => !HIDDEN.test(path));
    if (!kept.length || upload) return;
    const others = kept.some(isZip) || files.some(isZip) ? [] : files.filter(({ path }) => kept.every((each) => each.path !== path));
    files = [...others, ...kept].sort((one, other) => one.path.localeCompare(other.path, undefined, { numeric: true }));
    changed();
  };

  /** Leave out the name of a folder that has a folder for each person: it names nobody. */
  const inner = (found) => {
    const nested = found.some(({ path }) => path.split("/").length > 2);
    return nested ? found.map(({ file, path }) => ({ file, path: path.slice(path.indexOf("/") + 1) })) : found;
  };

  const whole = (list) => inner([...list].map((file) => ({ file, path: file.webkitRelativePath || file.name })));
  for (const one of [input, folder]) {
    one.addEventListener("change", () => {
      add(whole(one.files));
      one.value = ""; // so that the same files can be chosen again
    });
  }
  const opener = find("#job-folder");
  opener.hidden = !("webkitdirectory" in folder);
  opener.addEventListener("click", () => folder.click());
  find("#job-clear").addEventListener("click", () => {
    files = [];
    changed();
    input.focus();
  });
  form.addEventListener("change", (event) => { if (event.target.type !== "file") changed(); });
  form.addEventListener("input", (event) => { if (event.target.type === "text") key = ""; });

  /** Read a dropped folder with all that is in it. */
  const within = async (entry) => {
    if (entry.isFile) {
      const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
      return [{ file, path: entry.fullPath.replace(/^\//, "") }];
    }
    const reader = entry.createReader();
    const found = [];
    for (;;) {
      const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject)); // a hundred at a time
      if (!some.length) return found;
      for (const each of some) found.push(...await within(each));
    }
  };

  facerec.drops(form, async (dropped) => {
    const entries = [...dropped.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
    const plain = whole(dropped.files);
    if (!entries.length) return add(plain);
    try {
      add((await Promise.all(entries.map(async (entry) => inner(await within(entry))))).flat());
    } catch (problem) { // a file that is gone, or may not be read
      error.textContent = problem.message;
    }
  });

  /** Return why the choice cannot be sent, or nothing. */
  const problem = () => {
    if (!files.length) return texts.nothing;
    if (files.length > 1 && files.some(isZip)) return texts.oneZip;
    if (files.length > Number(texts.maxFiles)) {
      return fill(texts.tooMany, { n: count(files.length), most: count(Number(texts.maxFiles)) });
    }
    if (total() > texts.maxBytes) return fill(texts.tooLarge, { size: size(total()), most: size(texts.maxBytes) });
    if (enrolsByFolder() && !files.some(isZip) && !files.some(folderOf)) return texts.noFolders;
    return "";
  };

  const newKey = () => [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");

  const bar = sending.querySelector("progress");
  const words = find("#job-sent");
  const controls = [input, opener, find("#job-clear"), form.querySelector("[type=submit]"), ...form.querySelectorAll("fieldset")];
  const busy = (is) => {
    for (const control of controls) control.disabled = is;
    sending.hidden = !is;
  };
  const ended = (sentence) => {
    upload = null;
    busy(false);
    error.textContent = sentence;
  };

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (upload) return;
    error.textContent = problem();
    if (error.textContent || !form.reportValidity()) return;
    key ||= newKey();
    const body = new FormData();
    for (const { file, path } of files) body.append("file", file, path);
    const query = new URL(form.action);
    query.searchParams.set("operation", value("operation"));
    if (value("operation") === "enrol" && value("whom") === "person") {
      query.searchParams.set("person", find("[name=person]").value.trim());
    }
    const progress = (sent, all) => {
      bar.max = all;
      bar.value = sent;
      words.textContent = sent < all ? fill(texts.sending, { sent: size(sent), total: size(all) }) : texts.storing;
    };
    upload = new AbortController();
    const { signal } = upload;
    progress(0, total());
    busy(true);
    try {
      const reply = await facerec.upload(query, body, { progress, signal, headers: { "Idempotency-Key": key } });
      upload = null;
      const place = reply.header("Location");
      if (place) location.assign(place);
      else ended(reply.text);
    } catch {
      ended(signal.aborted ? texts.stopped : document.body.dataset.failed);
    }
  });
  find("#job-stop").addEventListener("click", () => upload?.abort());
  window.addEventListener("beforeunload", (event) => { if (upload) event.preventDefault(); });
  // A page that comes back from the browser's memory is ready for the next job.
  window.addEventListener("pageshow", (event) => { if (event.persisted) ended(""); });
  refresh();
})();
