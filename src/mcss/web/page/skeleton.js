// A skeleton in 3D on a canvas, which rotates by itself until it is rotated by hand.

const TURN_SECONDS = 14;
const REST_PITCH = 0.16;

export const LEFT = /^L[A-Z]/, RIGHT = /^R[A-Z]/;

export class SkeletonView {
  // figures: the skeletons to draw, each {pose: 17×3 mm, +Z up; tone: "body" | "ghost" | "other"; error: mm or null}
  constructor(canvas, joints, parents) {
    this.canvas = canvas;
    this.joints = joints;
    this.parents = parents;
    this.figures = [];
    this.yaw = 0.5;
    this.pitch = REST_PITCH;
    this.turning = !matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.dragged = null;
    this.last = 0;
    canvas.addEventListener("pointerdown", (event) => this.#grab(event));
    canvas.addEventListener("pointermove", (event) => this.#drag(event));
    for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, () => (this.dragged = null));
    canvas.addEventListener("keydown", (event) => this.#key(event));
    new ResizeObserver(() => this.draw()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
    const step = (now) => {
      const seconds = Math.min(0.1, (now - this.last) / 1000);
      this.last = now;
      if (this.turning && !this.dragged && this.figures.length && canvas.offsetParent) {
        this.yaw += (2 * Math.PI * seconds) / TURN_SECONDS;
        this.draw();
      }
      requestAnimationFrame(step);
    };
    requestAnimationFrame(step);
  }

  show(figures) {
    this.figures = figures;
    this.draw();
  }

  face(yaw) {
    this.yaw = yaw;
    this.pitch = REST_PITCH;
    this.draw();
  }

  set turns(on) {
    this.turning = on;
    this.canvas.dispatchEvent(new CustomEvent("turning", { detail: on }));
  }

  #grab(event) {
    this.canvas.setPointerCapture(event.pointerId);
    this.dragged = { x: event.clientX, y: event.clientY, yaw: this.yaw, pitch: this.pitch };
    this.turns = false;
  }

  #drag(event) {
    if (!this.dragged) return;
    this.yaw = this.dragged.yaw + (event.clientX - this.dragged.x) * 0.01;
    this.pitch = Math.max(-0.3, Math.min(1.45, this.dragged.pitch + (event.clientY - this.dragged.y) * 0.008));
    this.draw();
  }

  #key(event) {
    const turns = { ArrowLeft: [-0.15, 0], ArrowRight: [0.15, 0], ArrowUp: [0, 0.1], ArrowDown: [0, -0.1] }[event.key];
    if (!turns) return;
    event.preventDefault();
    this.turns = false;
    this.yaw += turns[0];
    this.pitch = Math.max(-0.3, Math.min(1.45, this.pitch + turns[1]));
    this.draw();
  }

  draw() {
    const { canvas } = this;
    const ratio = window.devicePixelRatio || 1;
    const width = canvas.clientWidth, height = canvas.clientHeight;
    if (!width || !height) return;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    const pen = canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    if (!this.figures.length) return;
    const style = getComputedStyle(canvas);
    const colour = (name) => style.getPropertyValue(`--${name}`).trim();
    const { scale, floor } = this.#frame(width, height);
    const cos = Math.cos(this.yaw), sin = Math.sin(this.yaw);
    const up = Math.cos(this.pitch), over = Math.sin(this.pitch);
    // x to the right, y down, depth towards the viewer, with a little perspective
    const place = ([x, y, z]) => {
      const right = cos * x - sin * y, away = sin * x + cos * y, high = z - this.middle;
      const depth = -away * up + high * over;
      const near = 1 / (1 - depth / 6500);
      return { x: width / 2 + right * scale * near, y: height / 2 - (high * up + away * over) * scale * near, depth, near };
    };
    this.#ground(pen, place, floor, colour);
    const order = { other: 0, ghost: 0, body: 1 };
    const drawn = [...this.figures].sort((a, b) => order[a.tone] - order[b.tone]);
    for (const figure of drawn) if (figure.tone !== "ghost") this.#shadow(pen, place, floor, figure.pose, colour);
    for (const figure of drawn) this.#figure(pen, place, figure, scale, colour);
  }

  // The scale stays the same while a video plays, so that a jump looks like a jump.
  #frame(width, height) {
    let reach = 700, low = Infinity, high = -Infinity;
    for (const { pose, extent } of this.figures) {
      for (const [x, y, z] of pose) {
        reach = Math.max(reach, Math.hypot(x, y));
        low = Math.min(low, z);
        high = Math.max(high, z);
      }
      if (extent) [low, high] = [Math.min(low, extent[0]), Math.max(high, extent[1])];
    }
    this.middle = (low + high) / 2 + 40;
    const scale = Math.min(width / (2.3 * reach), height / (1.3 * Math.max(1300, high - low + 160)));
    return { scale, floor: low - 30 };
  }

  #ground(pen, place, floor, colour) {
    pen.strokeStyle = colour("grid");
    pen.lineWidth = 1;
    for (const radius of [300, 600, 900]) {
      pen.beginPath();
      for (let i = 0; i <= 64; i++) {
        const angle = (i / 64) * 2 * Math.PI;
        const at = place([radius * Math.cos(angle), radius * Math.sin(angle), floor]);
        i ? pen.lineTo(at.x, at.y) : pen.moveTo(at.x, at.y);
      }
      pen.stroke();
    }
    // an arrow to where the person faces
    const [from, to] = [place([0, -640, floor]), place([0, -860, floor])];
    const [left, right] = [place([-60, -760, floor]), place([60, -760, floor])];
    pen.strokeStyle = colour("soft");
    pen.lineWidth = 1.5;
    pen.beginPath();
    pen.moveTo(from.x, from.y);
    pen.lineTo(to.x, to.y);
    pen.moveTo(left.x, left.y);
    pen.lineTo(to.x, to.y);
    pen.lineTo(right.x, right.y);
    pen.stroke();
  }

  #shadow(pen, place, floor, pose, colour) {
    pen.strokeStyle = colour("shadow");
    pen.lineCap = "round";
    this.parents.forEach((parent, joint) => {
      if (parent < 0) return;
      const [a, b] = [parent, joint].map((j) => place([pose[j][0], pose[j][1], floor]));
      pen.lineWidth = 9 * a.near;
      pen.beginPath();
      pen.moveTo(a.x, a.y);
      pen.lineTo(b.x, b.y);
      pen.stroke();
    });
  }

  #figure(pen, place, { pose, tone, error }, scale, colour) {
    const at = pose.map(place);
    if (error) {
      pen.fillStyle = colour("halo");
      pen.beginPath(); // one path, so that where halos overlap they do not darken
      for (let j = 1; j < at.length; j++) {
        const radius = error * scale * at[j].near;
        pen.moveTo(at[j].x + radius, at[j].y);
        pen.arc(at[j].x, at[j].y, radius, 0, 2 * Math.PI);
      }
      pen.fill();
    }
    const limbs = this.parents.map((parent, joint) => ({ parent, joint })).filter(({ parent }) => parent >= 0);
    limbs.sort((a, b) => at[a.parent].depth + at[a.joint].depth - at[b.parent].depth - at[b.joint].depth);
    const thick = Math.max(3, Math.min(13, 42 * scale)) * (tone === "body" ? 1 : 0.72);
    pen.lineCap = "round";
    for (const { parent, joint } of limbs) {
      const [a, b] = [at[parent], at[joint]];
      pen.lineWidth = (thick * (a.near + b.near)) / 2;
      if (tone === "body") {
        pen.strokeStyle = colour("card");
        pen.lineWidth += 3;
        this.#line(pen, a, b);
        pen.lineWidth -= 3;
      }
      pen.strokeStyle = this.#tint(joint, tone, colour);
      pen.globalAlpha = tone === "ghost" ? 0.55 : 1;
      this.#line(pen, a, b);
      pen.globalAlpha = 1;
    }
    const head = at[this.joints.indexOf("Head")];
    if (head) {
      pen.fillStyle = this.#tint(0, tone, colour);
      pen.globalAlpha = tone === "ghost" ? 0.55 : 1;
      pen.beginPath();
      pen.arc(head.x, head.y, thick * 1.5 * head.near, 0, 2 * Math.PI);
      pen.fill();
      pen.globalAlpha = 1;
    }
  }

  #line(pen, a, b) {
    pen.beginPath();
    pen.moveTo(a.x, a.y);
    pen.lineTo(b.x, b.y);
    pen.stroke();
  }

  #tint(joint, tone, colour) {
    if (tone === "ghost") return colour("soft");
    const name = this.joints[joint];
    const side = LEFT.test(name) ? "left" : RIGHT.test(name) ? "right" : "torso";
    return colour(tone === "other" ? `other-${side}` : side);
  }
}

// Draws joints over an image. at: 17 [x, y] as fractions of the crop; [x0, y0, side]: the crop in pixels of the canvas
export function drawJoints(pen, at, [x0, y0, side], joints, parents, style) {
  const colour = (name) => style.getPropertyValue(`--${name}`).trim();
  const points = at.map(([x, y]) => [x0 + x * side, y0 + y * side]);
  pen.lineCap = "round";
  for (const pass of ["edge", "ink"]) {
    parents.forEach((parent, joint) => {
      if (parent < 0) return;
      const name = joints[joint];
      pen.strokeStyle =
        pass === "edge" ? "rgba(255,255,255,.85)" : colour(LEFT.test(name) ? "left" : RIGHT.test(name) ? "right" : "torso");
      pen.lineWidth = Math.max(2, side / 70) + (pass === "edge" ? 2.5 : 0);
      pen.beginPath();
      pen.moveTo(...points[parent]);
      pen.lineTo(...points[joint]);
      pen.stroke();
    });
  }
}
