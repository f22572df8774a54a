// One image or video: the crop, the pose, its expected error, and the nearest images of the gallery.

import { analyse, ask, byId, element, showProgress } from "./api.js";
import { drawCurve } from "./curve.js";
import { hitCard, movementCard, viewButtons } from "./hits.js";
import { SkeletonView, drawJoints } from "./skeleton.js";

const COUNT = 12, MOVEMENTS = 8;
const AROUND = 1; // seconds before and after an image of the gallery that make its movement
const GUESS = 170; // expected error in mm, about that of the mean pose, above which a pose should not be relied on

export class AnalysisView {
  constructor(about) {
    this.about = about;
    this.skeleton = new SkeletonView(byId("skeleton"), about.joints, about.parents);
    this.trail = [];
    this.images = new Map();
    this.mode = "whole";
    this.#listen();
    if (about.gallery) {
      for (const [id, names, all] of [["filter-subject", about.gallery.subjects, "anyone"], ["filter-view", about.gallery.views, "any"]]) {
        byId(id).append(new Option(all, ""), new Option("another", "!"), ...names.map((name) => new Option(name, name)));
      }
      this.#samples();
    }
  }

  #listen() {
    for (const mode of ["crop", "whole"]) byId(`show-${mode}`).addEventListener("click", () => this.#setMode(mode));
    byId("turn").addEventListener("click", () => (this.skeleton.turns = !this.skeleton.turning));
    byId("skeleton").addEventListener("turning", (event) => byId("turn").setAttribute("aria-pressed", event.detail));
    byId("front").addEventListener("click", () => this.#face(0));
    byId("as-seen").addEventListener("click", () => this.#face(((this.frame?.heading ?? 0) * Math.PI) / 180));
    byId("time").addEventListener("input", () => { this.#pause(); this.#goto(+byId("time").value); });
    byId("play").addEventListener("click", () => (this.playing ? this.#pause() : this.#play()));
    for (const by of ["moment", "movement"]) byId(`by-${by}`).addEventListener("click", () => this.#searchBy(by));
    for (const id of ["filter-subject", "filter-view", "filter-own", "since", "until"]) byId(id).addEventListener("change", () => this.#search());
    byId("cancel").addEventListener("click", () => this.sending?.abort());
    const seen = byId("seen");
    seen.addEventListener("pointerdown", (event) => this.#boxBegin(event));
    seen.addEventListener("pointermove", (event) => this.#boxGrow(event));
    seen.addEventListener("pointerup", () => this.#boxEnd());
    seen.addEventListener("pointercancel", () => { this.box = null; this.#drawSeen(); });
    new ResizeObserver(() => { this.#drawSeen(); this.#drawCurve(); }).observe(seen);
  }

  #face(yaw) {
    this.skeleton.turns = false;
    this.skeleton.face(yaw);
  }

  // Analyses a file, or the same file again with a box around the person.
  async send(file, box = null) {
    this.sending?.abort();
    const sending = (this.sending = new AbortController());
    this.#pause();
    this.#alert("");
    byId("busy").hidden = false;
    try {
      const say = (text, share) => { if (this.sending === sending) showProgress(byId("busy"), text, share); };
      const result = await analyse(file, box, this.about.limits, say, sending.signal);
      if (this.sending !== sending) return;
      this.file = file;
      this.trail = [upload(result)];
      this.images.clear();
      this.#open();
    } catch (error) {
      if (this.sending === sending && error.name !== "AbortError") this.#alert(error.message);
    } finally {
      if (this.sending === sending) byId("busy").hidden = true;
    }
  }

  // The address bar --------------------------------------------------------------------------------------------

  // Notes the steps of the search in the address, so that Back, Forward and Reload show them again.
  #note() {
    const words = this.trail.map((step) => (step.kind === "upload" ? `result-${step.result.id}` : `image-${step.image.image}`));
    const address = `#${words.join(",")}`;
    if (location.hash !== address) history.pushState(null, "", address);
  }

  // Shows the steps that the address names.
  async restore() {
    this.#pause();
    this.#alert("");
    const words = location.hash.slice(1).split(",").filter(Boolean);
    if (!words.length) return this.#close();
    try {
      const trail = await Promise.all(words.map(async (word) => {
        const [kind, ...rest] = word.split("-"), name = encodeURIComponent(rest.join("-"));
        return kind === "result" ? upload(await ask(`/api/results/${name}`)) : ofGallery(await ask(`/api/gallery/${name}`));
      }));
      this.trail = trail;
      this.images.clear();
      this.#open();
    } catch (error) {
      this.#close();
      this.#alert(error.message);
    }
  }

  // Goes back to the start of the page.
  #close() {
    this.trail = [];
    byId("result").hidden = true;
    byId("samples").hidden = !this.about.gallery;
    byId("drop").classList.remove("compact");
  }

  // Shows an image of the gallery, and continues the search from it.
  async pick(place, fresh = false) {
    this.#pause();
    this.#alert("");
    try {
      const image = await ask(`/api/gallery/${place}`);
      if (fresh) this.trail = [];
      this.trail.push(ofGallery(image));
      this.#open();
      byId("trail").scrollIntoView({ behavior: "smooth", block: "center" });
    } catch (error) {
      this.#alert(error.message);
    }
  }

  get step() { return this.trail.at(-1); }
  get frames() { return this.step.kind === "upload" ? this.step.result.frames : [{ pose: this.step.image.pose, time: this.step.image.time }]; }
  get frame() { return this.trail.length ? this.frames[this.at] : null; }
  get isVideo() { return this.step?.kind === "upload" && this.step.result.kind === "video"; }

  #open() {
    this.at = 0;
    const { step } = this;
    byId("result").hidden = false;
    byId("samples").hidden = true;
    byId("drop").classList.add("compact");
    byId("trail").replaceChildren(...this.trail.map((one, i) => element("li", {}, one === step
      ? element("span", { "aria-current": "step" }, one.name)
      : element("button", { onclick: () => { this.trail.length = i + 1; this.#open(); } }, one.name))));
    byId("trail").hidden = this.trail.length < 2 && step.kind === "upload";
    byId("seen-title").textContent = step.kind === "gallery" ? "Image of the gallery" : this.isVideo ? "Video" : "Image";
    byId("seen-switch").hidden = step.kind === "gallery";
    byId("player").hidden = !this.isVideo;
    byId("time").max = this.frames.length - 1;
    this.#setMode(step.kind === "gallery" || this.isVideo ? "crop" : "whole");
    byId("as-seen").hidden = this.frame.heading === undefined;
    byId("ghost-key").hidden = !(step.kind === "gallery" && step.image.true);
    byId("halo-key").hidden = this.frame.error === undefined;
    byId("notes").replaceChildren(...(step.kind === "upload" ? step.result.notes : []).map((note) => element("li", {}, note)));
    for (const id of ["filter-subject", "filter-view"]) this.#offerAnother(byId(id), step.kind === "gallery");
    byId("downloads").hidden = step.kind !== "upload";
    if (step.kind === "upload") {
      for (const link of byId("downloads").querySelectorAll("a")) link.href = `/api/results/${step.result.id}/poses.${link.dataset.format}`;
    }
    this.#note();
    this.#goto(0);
    this.#searchBy("moment");
  }

  // Searches for the moment that is shown, or for the movement around it.
  #searchBy(by) {
    const { step } = this;
    this.by = by;
    for (const one of ["moment", "movement"]) byId(`by-${one}`).setAttribute("aria-pressed", one === by);
    byId("search-switch").hidden = step.kind === "upload" && !this.isVideo;
    byId("nearest-title").textContent = by === "movement" ? "The same movement elsewhere" : "The same pose elsewhere";
    byId("span").hidden = by !== "movement" || !this.isVideo;
    byId("own-label").hidden = by === "movement" || step.kind !== "gallery";
    if (by === "movement" && this.isVideo) {
      const end = this.frames.at(-1).time, from = Math.max(0, Math.min(this.frame.time - 2, end - 4));
      byId("since").value = from.toFixed(1);
      byId("until").value = (Math.ceil(10 * Math.min(end, from + 4)) / 10).toFixed(1); // with the last image
    }
    this.#search();
  }

  // "Another person" or view than that of the query: known only for images of the gallery.
  #offerAnother(select, offered) {
    const option = [...select.options].find((one) => one.value === "!");
    if (!option) return;
    option.disabled = option.hidden = !offered;
    if (!offered && select.value === "!") select.value = "";
  }

  #goto(at) {
    this.at = at;
    const { frame, step } = this;
    byId("time").value = at;
    byId("time-text").textContent = `${frame.time.toFixed(2)} s`;
    const figures = [];
    if (frame.pose) figures.push({ pose: frame.pose, tone: "body", error: frame.error ?? null, extent: this.#extent() });
    if (step.kind === "gallery" && step.image.true) figures.push({ pose: step.image.true, tone: frame.pose ? "ghost" : "body" });
    this.skeleton.show(figures);
    this.#facts();
    this.#drawSeen();
    this.#drawCurve();
    if (this.isVideo && !this.playing && this.by !== "movement") {
      clearTimeout(this.later);
      this.later = setTimeout(() => this.#search(), 250);
    }
  }

  // The lowest and highest joint of a whole video, so that its skeleton keeps its size.
  #extent() {
    if (!this.isVideo) return null;
    this.step.extent ??= this.frames.reduce(([low, high], { pose }) => pose.reduce(([a, b], [, , z]) => [Math.min(a, z), Math.max(b, z)], [low, high]), [0, 0]);
    return this.step.extent;
  }

  #facts() {
    const { frame, step } = this;
    const rows = [];
    const certainty = byId("certainty");
    if (frame.error !== undefined) {
      const limit = step.result.limit;
      certainty.replaceChildren(
        element("div", { class: "figure-big" }, `± ${frame.error.toFixed(0)} `, element("small", {}, "mm per joint, expected")),
        element("div", { class: "gauge", role: "img", "aria-label": `expected error ${frame.error.toFixed(0)} mm on a scale from 0 to 250` }, element("i")),
        element("div", { class: "gauge-ends" }, element("span", {}, "0 mm: certain"), element("span", {}, "250 mm: a guess")),
        ...(frame.error > GUESS ? [element("p", { class: "warn" }, "The model is guessing: it knows hardly any poses like this one.")] : []),
        element("p", { class: "small" }, `Estimated from known poses near this one: how much they differ, and how far away they are${limit ? `. Nine of ten such errors were below ${(limit * frame.error).toFixed(0)} mm` : ""}. Calibrated on the capture that the model was equipped with; errors on other footage may be larger.`),
      );
      certainty.querySelector("i").style.left = `${Math.min(100, frame.error / 2.5)}%`;
    } else if (step.kind === "gallery" && step.image.true && frame.pose) {
      const error = frame.pose.slice(1).reduce((sum, joint, j) => sum + Math.hypot(...joint.map((v, k) => v - step.image.true[j + 1][k])), 0) / 16;
      certainty.replaceChildren(element("div", { class: "figure-big" }, `${error.toFixed(0)} `, element("small", {}, "mm from the label")),
        element("p", { class: "small" }, "This image has a 3D label, drawn in grey. The distance is averaged over 16 joints."));
    } else {
      certainty.replaceChildren(element("p", { class: "small" }, step.kind === "gallery" ? "" : "This model does not estimate its error; mcss equip adds that."));
    }
    if (frame.heading !== undefined) {
      const vague = frame.sure === false;
      rows.push(["Heading", element("span", { class: vague ? "vague" : null }, heading(frame.heading) + (vague ? " (uncertain)" : ""))]);
    }
    if (this.isVideo) rows.push(["Image", `${this.at + 1} of ${this.frames.length}`], ["Person", frame.found ? "found" : "not found here; crop interpolated"]);
    if (step.kind === "gallery") {
      const { subject, sequence, time, view } = step.image;
      rows.push(["Person", subject], ["Recording", sequence], ["Time", `${time.toFixed(2)} s`], ["View", view]);
    }
    byId("facts").replaceChildren(...rows.flatMap(([term, text]) => [element("dt", {}, term), element("dd", {}, text)]));
    if (step.kind === "gallery" && step.image.others.length) {
      byId("facts").append(element("dt", {}, "Other views"), element("dd", {}, viewButtons(step.image.others, (place) => this.pick(place))));
    }
  }

  // The image ------------------------------------------------------------------------------------------------

  #setMode(mode) {
    this.mode = mode;
    for (const name of ["crop", "whole"]) byId(`show-${name}`).setAttribute("aria-pressed", name === mode);
    const drawing = mode === "whole";
    byId("seen").classList.toggle("drawing", drawing);
    byId("seen-hint").textContent = this.step?.kind === "gallery" ? "" : drawing ? "Draw a box around the person to analyse only that part." : "What the model sees.";
    this.#drawSeen();
  }

  #address() {
    const { step } = this;
    if (step.kind === "gallery") return `/api/gallery/${step.image.image}/image`;
    return this.mode === "whole" ? `/api/results/${step.result.id}/image` : `/api/results/${step.result.id}/crops/${this.at}`;
  }

  #image(address) {
    let image = this.images.get(address);
    if (!image) {
      image = new Image();
      image.onload = () => this.trail.length && this.#address() === address && this.#drawSeen();
      image.src = address;
      this.images.set(address, image);
    }
    return image;
  }

  #drawSeen() {
    if (!this.trail.length) return;
    const canvas = byId("seen"), ratio = window.devicePixelRatio || 1;
    const side = canvas.clientWidth;
    if (!side) return;
    const image = this.#image(this.#address());
    if (!image.complete || !image.naturalWidth) return;
    canvas.width = canvas.height = Math.round(side * ratio);
    const pen = canvas.getContext("2d");
    pen.scale(ratio, ratio);
    const scale = side / Math.max(image.naturalWidth, image.naturalHeight);
    const [width, height] = [image.naturalWidth * scale, image.naturalHeight * scale];
    this.placed = { x: (side - width) / 2, y: (side - height) / 2, width, height };
    pen.drawImage(image, this.placed.x, this.placed.y, width, height);
    const { frame, about } = this, style = getComputedStyle(canvas);
    let crop = [0, 0, side];
    if (this.mode === "whole" && this.step.kind === "upload") {
      const first = this.isVideo ? this.frames[0] : frame;
      const [x0, y0, x1] = first.crop_box;
      crop = [this.placed.x + x0 * width, this.placed.y + y0 * height, (x1 - x0) * width];
      pen.strokeStyle = "rgba(255,255,255,.9)";
      pen.lineWidth = 1.5;
      pen.setLineDash([5, 4]);
      pen.strokeRect(...crop, crop[2]);
      pen.setLineDash([]);
    }
    pen.globalAlpha = frame.sure === false ? 0.35 : 1;
    if (frame.joints && !(this.isVideo && this.mode === "whole")) drawJoints(pen, frame.joints, crop, about.joints, about.parents, style);
    pen.globalAlpha = 1;
    if (this.box) {
      const { x, y, w, h } = this.box;
      pen.fillStyle = "rgba(255,255,255,.18)";
      pen.fillRect(x, y, w, h);
      pen.strokeStyle = style.getPropertyValue("--accent");
      pen.lineWidth = 2;
      pen.strokeRect(x, y, w, h);
    }
  }

  #boxBegin(event) {
    if (this.mode !== "whole" || this.step?.kind !== "upload") return;
    event.target.setPointerCapture(event.pointerId);
    this.box = { x: event.offsetX, y: event.offsetY, w: 0, h: 0 };
  }

  #boxGrow(event) {
    if (!this.box) return;
    this.box.w = event.offsetX - this.box.x;
    this.box.h = event.offsetY - this.box.y;
    this.#drawSeen();
  }

  #boxEnd() {
    const { box, placed } = this;
    this.box = null;
    if (!box || Math.abs(box.w) < 12 || Math.abs(box.h) < 12) return this.#drawSeen();
    const [x, y] = [Math.min(box.x, box.x + box.w), Math.min(box.y, box.y + box.h)];
    if (!this.file) return this.#alert("The file itself is no longer here, since the page was loaded again; choose it again to draw a box.");
    const shares = [(x - placed.x) / placed.width, (y - placed.y) / placed.height, Math.abs(box.w) / placed.width, Math.abs(box.h) / placed.height];
    this.send(this.file, shares);
  }

  // The video --------------------------------------------------------------------------------------------------

  #play() {
    if (this.at >= this.frames.length - 1) this.at = 0;
    this.playing = { since: performance.now(), from: this.frames[this.at].time };
    byId("play").textContent = "❚❚";
    byId("play").setAttribute("aria-label", "Pause");
    const step = () => {
      if (!this.playing) return;
      const time = this.playing.from + (performance.now() - this.playing.since) / 1000;
      let at = this.at;
      while (at < this.frames.length - 1 && this.frames[at + 1].time <= time) at++;
      if (at !== this.at) this.#goto(at);
      if (at >= this.frames.length - 1) return this.#pause();
      for (let ahead = 1; ahead < 8 && at + ahead < this.frames.length; ahead++) if (this.mode === "crop") this.#image(`/api/results/${this.step.result.id}/crops/${at + ahead}`);
      requestAnimationFrame(step);
    };
    requestAnimationFrame(step);
  }

  #pause() {
    if (!this.playing) return;
    this.playing = null;
    byId("play").textContent = "▶";
    byId("play").setAttribute("aria-label", "Play");
    this.#search();
  }

  #drawCurve() {
    if (!this.trail.length || !this.isVideo) return;
    const { frames } = this;
    if (frames[0].error === undefined) return;
    drawCurve(byId("curve"), frames.map((f) => f.time), frames.map((f) => f.error), frames[this.at].time, "expected error");
  }

  // The neighbours ---------------------------------------------------------------------------------------------

  async #search() {
    const { step, about } = this;
    byId("nearest").hidden = !about.gallery;
    if (!about.gallery || !step) return;
    const moving = this.by === "movement", address = `/api/${moving ? "movements" : "neighbours"}`;
    const query = new URLSearchParams({ count: moving ? MOVEMENTS : COUNT });
    if (step.kind === "gallery") query.set("image", step.image.image);
    else query.set("result", step.result.id);
    if (moving && step.kind === "gallery") query.set("around", AROUND);
    else if (moving) for (const id of ["since", "until"]) query.set(id, byId(id).value || 0);
    else if (step.kind === "upload") query.set("frame", this.at);
    for (const name of ["subject", "view"]) {
      const chosen = byId(`filter-${name}`).value;
      if (chosen === "!") { if (step.kind === "gallery") query.set(`not_${name}`, step.image[name]); }
      else if (chosen) query.set(name, chosen);
    }
    if (!moving && byId("filter-own").checked) query.set("same_recording", "yes");
    this.searching?.abort();
    const request = (this.searching = new AbortController());
    byId("grid").classList.add("stale");
    try {
      let { found } = await ask(`${address}?${query}`, { signal: request.signal });
      this.#alert("");
      if (!moving && !found.length && step.kind === "gallery" && !byId("filter-own").checked && !byId("filter-subject").value) {
        byId("filter-own").checked = true; // the gallery has no other recording
        query.set("same_recording", "yes");
        ({ found } = await ask(`${address}?${query}`, { signal: request.signal }));
      }
      const pick = (place) => this.pick(place);
      byId("grid").classList.toggle("movements", moving);
      byId("grid").replaceChildren(...found.map((hit) => (moving ? movementCard : hitCard)(hit, pick)));
      byId("nearest-hint").textContent = this.#hint(found.length, moving);
    } catch (error) {
      if (error.name === "AbortError") return;
      byId("grid").replaceChildren();
      byId("nearest-hint").textContent = "";
      this.#alert(error.message);
    } finally {
      if (this.searching === request) byId("grid").classList.remove("stale");
    }
  }

  #hint(count, moving) {
    if (!count) return "No image meets these conditions; choose others.";
    const { images, name } = this.about.gallery, among = `${images.toLocaleString("en")} images of “${name}”`;
    if (!moving) return `The nearest moments among ${among}, each with its other views below. Click an image to continue the search from it.`;
    const what = this.isVideo ? "the movement in this part of the video" : `the movement from ${AROUND} s before this image to ${AROUND} s after it`;
    return `The stretches among ${among} that show ${what}, at half to twice its pace.`;
  }

  async #samples() {
    const { images } = this.about.gallery, many = Math.min(10, images);
    byId("samples").hidden = false;
    const places = Array.from({ length: many }, (_, i) => Math.floor(((i + 0.37) / many) * images));
    byId("samples-strip").replaceChildren(...places.map((place) => element("button", { onclick: () => this.pick(place, true), "data-image": place, "aria-label": "start from this image" },
      element("img", { src: `/api/gallery/${place}/image`, alt: "" }))));
  }

  #alert(text) {
    byId("alert").textContent = text;
    byId("alert").hidden = !text;
  }
}

function upload(result) {
  return { kind: "upload", result, name: result.kind === "video" ? "Your video" : "Your image" };
}

function ofGallery(image) {
  return { kind: "gallery", image, name: `${image.subject} · ${image.sequence} · ${image.time.toFixed(1)} s · view ${image.view}` };
}

function heading(degrees) {
  const size = Math.abs(Math.round(degrees));
  if (size <= 20) return "faces the camera";
  if (size >= 160) return "seen from behind";
  return `${size}° to their ${degrees > 0 ? "left" : "right"}`;
}
