// The recognise view: each photo becomes a card at once; a few are sent at a time, the others wait for their turn.
"use strict";

{
  const RETRIES = 3;
  const POLL_MS = 3000;
  const STARTING_AFTER_S = 8; // a worker that runs answers sooner
  const NEWS_UP_TO = 10; // photos of which each is announced; beyond, only the total

  const section = document.getElementById("recognise");
  const words = section.dataset;
  const [list, news, tools] = ["photos", "news", "tools"].map((id) => document.getElementById(id));
  const template = document.getElementById("photo-card");
  const types = words.types.split(" ");
  const cards = new Set();
  const IN_WORK = ["sending", "waiting", "late", "retrying"];
  const having = (...states) => [...cards].filter((card) => states.includes(card.state));

  const { fill } = facerec;
  const number = (value, options) => value.toLocaleString(undefined, options);

  class Card {
    constructor(file) {
      this.file = file;
      this.element = template.content.firstElementChild.cloneNode(true);
      const find = (selector) => this.element.querySelector(selector);
      [this.shown, this.image, this.line, this.progress, this.outcome] =
        [".shown", "img", ".state", "progress", ".outcome"].map(find);
      find(".filename").textContent = this.name = file.name;
      find(".size").textContent = facerec.size(file.size);
      facerec.watchPicture(this.image);
      // A picture that is drawn needs its address no more.
      for (const end of ["load", "error"]) this.image.addEventListener(end, () => this.forgetUrl());
      facerec.upright(file).then((shown) => { this.image.src = this.url = URL.createObjectURL(shown); });
      this.element.addEventListener("click", (event) => {
        const act = event.target.closest("[data-do]")?.dataset.do;
        if (act) this[act]();
      });
      this.show("queued", words.queued);
    }

    forgetUrl() {
      URL.revokeObjectURL(this.url);
    }

    /** Show a state with its sentence, and a share from 0 to 1, or `null` for a bar without an end. */
    show(state, sentence, share) {
      this.state = this.element.dataset.state = state;
      this.line.textContent = sentence;
      this.progress.hidden = share === undefined;
      if (share === null) this.progress.removeAttribute("value");
      else if (share !== undefined) this.progress.value = share;
      this.line.setAttribute("role", state === "failed" ? "alert" : "none");
      const ended = ["done", "failed", "cancelled"].includes(state);
      this.element.querySelector("[data-do=cancel]").hidden = ended;
      this.element.querySelector("[data-do=again]").hidden = state !== "cancelled" && !(state === "failed" && this.retryable);
      count();
    }

    /** Say how long it has been waiting; called every second. */
    tick() {
      const seconds = Math.round((performance.now() - this.since) / 1000);
      const kind = this.state === "late" ? "late" : seconds < STARTING_AFTER_S ? "waiting" : "starting";
      this.line.textContent = fill(words[kind], { seconds: number(seconds) });
    }

    async run() {
      this.abort = new AbortController();
      this.showShare(0);
      try {
        for (let tries = 1; ; tries += 1) {
          let reply = await this.send();
          if (reply.status === 202) reply = await this.poll(reply.header("Location"));
          const again = [429, 503].includes(reply.status) && Number(reply.header("Retry-After"));
          if (reply.status === 200) return this.done(reply.text);
          if (!again || tries > RETRIES) return this.fail(reply);
          await this.pause(again, reply.text, tries);
        }
      } catch (error) {
        if (this.abort.signal.aborted) this.show("cancelled", words.cancelled);
        else if (error instanceof TypeError) this.fail({ status: 0 });
        else throw error;
      }
    }

    send() {
      const form = new FormData();
      form.append("file", this.file, this.name);
      const progress = (sent, all) => (sent < all ? this.showShare(sent / all) : this.wait("waiting"));
      return facerec.upload(words.url, form, { progress, signal: this.abort.signal });
    }

    showShare(share) {
      this.show("sending", fill(words.sending, { share: number(share, { style: "percent" }) }), share);
    }

    wait(state) {
      if (state === "waiting") this.since = performance.now();
      this.show(state, "", null);
      this.tick();
    }

    /** Ask for a late result until it is there. */
    async poll(place) {
      this.wait("late");
      for (;;) {
        await this.sleep(POLL_MS);
        const response = await facerec.fetch(place, { signal: this.abort.signal });
        const text = await response.text();
        if (response.status !== 202) return { status: response.status, text, header: (name) => response.headers.get(name) };
      }
    }

    async pause(seconds, sentence, n) {
      for (let left = seconds; left > 0; left -= 1) {
        this.show("retrying", fill(words.retrying, { sentence, seconds: number(left), n, most: RETRIES }), 1 - left / seconds);
        await this.sleep(1000);
      }
      this.showShare(0);
    }

    sleep(ms) {
      return new Promise((resolve, reject) => {
        const timer = setTimeout(resolve, ms);
        this.abort.signal.addEventListener("abort", () => { clearTimeout(timer); reject(this.abort.signal.reason); });
      });
    }

    done(html) {
      const parsed = document.createElement("template");
      parsed.innerHTML = html;
      this.outcome.replaceChildren(parsed.content);
      htmx.process(this.outcome);
      facerec.localise(this.outcome);
      facerec.layOver(this.shown);
      this.file = null;
      this.show("done", "");
      announce(this.name, this.outcome.querySelector(".result").dataset.summary);
    }

    /** Show the server's sentence; a photo that cannot be recognised is not worth another try. */
    fail({ status, text, header }) {
      const said = header?.("Content-Type")?.startsWith("text/plain") ? text : document.body.dataset.failed;
      this.retryable = ![400, 413, 415].includes(status);
      this.show("failed", said);
    }

    refuse(sentence) {
      this.retryable = false;
      this.show("failed", sentence);
    }

    cancel() {
      if (this.state === "queued") this.show("cancelled", words.cancelled);
      else this.abort.abort();
    }

    again() {
      this.show("queued", words.queued);
      next();
    }

    remove() {
      const focused = this.element.contains(document.activeElement);
      const beside = this.element.nextElementSibling ?? this.element.previousElementSibling;
      this.drop();
      count();
      next();
      if (focused) (beside?.querySelector("[data-do=remove]") ?? section.querySelector("input[type=file]")).focus();
    }

    drop() {
      cards.delete(this);
      this.abort?.abort();
      this.forgetUrl();
      this.element.remove();
    }
  }

  /** Return the server's sentence for a file that it would refuse. */
  const refusal = (file) => {
    if (!file.size) return words.empty;
    if (file.size > Number(words.maxBytes)) return words.large;
    return file.type && !types.includes(file.type) ? words.wrongType : null;
  };

  const announce = (name, verdict) => {
    if (cards.size <= NEWS_UP_TO) news.textContent = fill(words.news, { name, verdict });
    else if (!having("queued", ...IN_WORK).length) news.textContent = document.getElementById("total").textContent;
  };

  const next = () => {
    let free = Number(words.atOnce) - having(...IN_WORK).length;
    for (const card of having("queued")) {
      if (free <= 0) return;
      free -= 1;
      card.run().finally(next);
    }
  };

  const count = () => {
    const total = cards.size;
    const open = having("queued", ...IN_WORK).length;
    section.classList.toggle("empty", !total);
    tools.hidden = !total;
    document.getElementById("many").hidden = total <= Number(words.many);
    document.getElementById("total").textContent =
      fill(words.progress, { done: number(total - open), total: number(total) });
    tools.querySelector("progress").hidden = !open;
    tools.querySelector("progress").value = total ? (total - open) / total : 0;
    document.getElementById("cancel-all").hidden = !open;
    document.getElementById("clear").hidden = open === total;
  };

  document.getElementById("cancel-all").addEventListener("click", () => {
    for (const card of having("queued", ...IN_WORK)) card.cancel();
  });
  document.getElementById("clear").addEventListener("click", () => {
    for (const card of having("done", "failed", "cancelled")) card.drop();
    count();
    section.querySelector("input[type=file]").focus();
  });
  setInterval(() => { for (const card of having("waiting", "late")) card.tick(); }, 1000);

  facerec.photos(section.querySelector(".photo-zone"), (files) => {
    const added = files.map((file) => new Card(file));
    for (const card of added) cards.add(card);
    list.prepend(...added.map((card) => card.element));
    for (const card of added) {
      const sentence = refusal(card.file);
      if (sentence) card.refuse(sentence);
    }
    count();
    next();
  }, { any: true });
}
