// Draws a curve over time, with a line at the current time.

export function drawCurve(canvas, x, y, now, label) {
  const ratio = window.devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
  if (!width || !height) return;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const pen = canvas.getContext("2d"), style = getComputedStyle(canvas);
  const colour = (name) => style.getPropertyValue(`--${name}`).trim();
  pen.scale(ratio, ratio);
  const top = Math.max(100, ...y), first = x[0], last = Math.max(x.at(-1), first + 1e-6);
  const place = (i) => [2 + ((x[i] - first) / (last - first)) * (width - 4), height - 4 - (y[i] / top) * (height - 20)];
  pen.beginPath();
  pen.moveTo(place(0)[0], height - 3);
  x.forEach((_, i) => pen.lineTo(...place(i)));
  pen.lineTo(place(x.length - 1)[0], height - 3);
  pen.closePath();
  pen.fillStyle = colour("tint");
  pen.fill();
  pen.beginPath();
  x.forEach((_, i) => (i ? pen.lineTo(...place(i)) : pen.moveTo(...place(i))));
  pen.strokeStyle = colour("accent");
  pen.lineWidth = 1.6;
  pen.stroke();
  const at = 2 + ((now - first) / (last - first)) * (width - 4);
  pen.strokeStyle = colour("left");
  pen.lineWidth = 1.5;
  pen.beginPath();
  pen.moveTo(at, 12);
  pen.lineTo(at, height - 2);
  pen.stroke();
  pen.fillStyle = colour("soft");
  pen.font = "11px system-ui, sans-serif";
  pen.textBaseline = "top";
  pen.fillText(`${label}, up to ${Math.max(...y).toFixed(0)} mm`, 2, 0);
}
