// Compares two videos side by side, aligned by pose.

import { analyse, ask, byId, element, showProgress } from "./api.js";
import { drawCurve } from "./curve.js";
import { SkeletonView } from "./skeleton.js";

export class ComparisonView {
  constructor(about) {
    this.about = about;
    this.results = {};
    this.both = new SkeletonView(byId("both"), about.joints, about.parents);
    this.waiting = Promise.resolve();
    byId("compare-time").addEventListener("input", () => { this.#stop(); this.#goto(+byId("compare-time").value); });
    byId("compare-cancel").addEventListener("click", () => this.sending?.abort());
    byId("compare-play").addEventListener("click", () => (this.playing ? this.#stop() : this.#play()));
    new ResizeObserver(() => this.comparison && this.#curve()).observe(byId("compare-curve"));
  }

  // Uploads one of the two videos, "a" or "b".
  send(which, file) {
    const slot = byId(`slot-${which}`);
    slot.classList.add("full");
    slot.querySelector(".slot-text").textContent = file.name;
    this.waiting = this.waiting.then(() => this.#send(which, file));
    return this.waiting;
  }

  async #send(which, file) {
    this.#alert("");
    delete this.results[which];
    byId("compare-busy").hidden = false;
    this.sending = new AbortController();
    try {
      const say = (text, share) => showProgress(byId("compare-busy"), `${which.toUpperCase()}: ${text}`, share);
      const result = await analyse(file, null, this.about.limits, say, this.sending.signal);
      if (result.kind !== "video") throw new Error("This is an image; choose a video.");
      this.results[which] = result;
      if (this.results.a && this.results.b) await this.#compare();
    } catch (error) {
      if (error.name !== "AbortError") this.#alert(`${which.toUpperCase()}: ${error.message}`);
      this.#empty(which);
    } finally {
      byId("compare-busy").hidden = true;
    }
  }

  #empty(which) {
    byId(`slot-${which}`).classList.remove("full");
    byId(`slot-${which}`).querySelector(".slot-text").textContent = `Drop the ${which === "a" ? "first" : "second"} video`;
  }

  // Shows the comparison that the address names.
  async restore(names) {
    this.#stop();
    this.#alert("");
    try {
      const [a, b] = await Promise.all(names.map((name) => ask(`/api/results/${encodeURIComponent(name)}`)));
      this.results = { a, b };
      for (const which of ["a", "b"]) {
        byId(`slot-${which}`).classList.add("full");
        byId(`slot-${which}`).querySelector(".slot-text").textContent = "The video that was sent before";
      }
      await this.#compare();
    } catch (error) {
      byId("comparison").hidden = true;
      this.#alert(error.message);
    }
  }

  async #compare() {
    const { a, b } = this.results;
    const address = `#compare,${a.id},${b.id}`;
    if (location.hash !== address) history.pushState(null, "", address);
    this.comparison = await ask(`/api/comparison?${new URLSearchParams({ first: a.id, second: b.id })}`);
    byId("comparison").hidden = false;
    byId("compare-time").max = this.comparison.pairs.length - 1;
    const worst = this.comparison.angles.slice(0, 5), most = Math.max(1, ...worst.map(({ apart }) => apart));
    byId("worst").replaceChildren(...worst.map(({ name, a: angleA, b: angleB, apart }) => {
      const bar = element("i");
      bar.style.setProperty("--share", `${((100 * apart) / most).toFixed(0)}%`);
      return element("div", { class: "bar-row" }, element("span", {}, name), bar, element("output", {}, `${apart.toFixed(0)}°`), element("span", { class: "small" }, `A ${angleA}°, B ${angleB}°`));
    }));
    for (const video of [a, b]) for (let i = 0; i < video.frames.length; i++) new Image().src = `/api/results/${video.id}/crops/${i}`;
    this.#goto(0);
    byId("comparison").scrollIntoView({ behavior: "smooth", block: "start" });
  }

  #goto(at) {
    this.at = at;
    const pair = this.comparison.pairs[at];
    const poses = ["a", "b"].map((which, k) => {
      const video = this.results[which], frame = video.frames[pair[k]];
      byId(`crop-${which}`).src = `/api/results/${video.id}/crops/${pair[k]}`;
      byId(`time-${which}`).textContent = `${frame.time.toFixed(2)} s`;
      return frame.pose;
    });
    byId("compare-time").value = at;
    byId("compare-text").textContent = `${this.comparison.apart[at].toFixed(0)} mm apart`;
    this.both.show([{ pose: poses[1], tone: "other" }, { pose: poses[0], tone: "body" }]);
    this.#curve();
  }

  #curve() {
    const { apart, time } = this.comparison;
    drawCurve(byId("compare-curve"), time, apart, time[this.at], "apart");
  }

  #play() {
    if (this.at >= this.comparison.pairs.length - 1) this.at = 0;
    this.playing = { since: performance.now(), from: this.at };
    byId("compare-play").textContent = "❚❚";
    const step = () => {
      if (!this.playing) return;
      const { time } = this.comparison, now = time[this.playing.from] + (performance.now() - this.playing.since) / 1000;
      let at = this.at;
      while (at < time.length - 1 && time[at + 1] <= now) at++;
      if (at !== this.at) this.#goto(at);
      if (at >= this.comparison.pairs.length - 1) return this.#stop();
      requestAnimationFrame(step);
    };
    requestAnimationFrame(step);
  }

  #stop() {
    this.playing = null;
    byId("compare-play").textContent = "▶";
  }

  #alert(text) {
    byId("compare-alert").textContent = text;
    byId("compare-alert").hidden = !text;
  }
}
