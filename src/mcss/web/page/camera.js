// The visitor's camera: takes an image, or records a few seconds.

import { byId } from "./api.js";

const SECONDS = 5;

export function useCamera(taken) {
  const dialog = byId("camera-dialog"), view = byId("camera-view"), alert = byId("camera-alert");
  let stream = null, recorder = null;

  const say = (text) => { alert.textContent = text; alert.hidden = !text; };
  const close = () => {
    if (recorder?.state === "recording") { recorder.onstop = null; recorder.stop(); }
    stream?.getTracks().forEach((track) => track.stop());
    stream = recorder = view.srcObject = null;
    if (dialog.open) dialog.close();
  };
  const enable = (on) => { for (const id of ["camera-image", "camera-video"]) byId(id).disabled = !on; };

  byId("camera").addEventListener("click", async () => {
    say("");
    enable(false);
    byId("camera-video").textContent = `Record ${SECONDS} s`;
    dialog.showModal();
    if (!navigator.mediaDevices) {
      say("Browsers allow the camera only on this computer's own address (127.0.0.1) or over https. On a phone, “Choose a file” offers the camera.");
      return;
    }
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video: { width: 960, height: 720 }, audio: false });
      if (!dialog.open) return close();
      view.srcObject = stream;
      await view.play();
      enable(true);
    } catch (error) {
      say(error.name === "NotAllowedError" ? "Access to the camera was denied; allow it in the browser's address bar." : "No usable camera was found.");
    }
  });
  byId("camera-close").addEventListener("click", close);
  dialog.addEventListener("cancel", close);

  byId("camera-image").addEventListener("click", () => {
    const canvas = document.createElement("canvas");
    canvas.width = view.videoWidth;
    canvas.height = view.videoHeight;
    canvas.getContext("2d").drawImage(view, 0, 0);
    canvas.toBlob((blob) => { close(); taken(blob); }, "image/jpeg", 0.92);
  });

  byId("camera-video").addEventListener("click", () => {
    const kind = ["video/webm;codecs=vp8", "video/webm", "video/mp4"].find((type) => MediaRecorder.isTypeSupported(type));
    recorder = new MediaRecorder(stream, { mimeType: kind });
    const parts = [];
    recorder.ondataavailable = (event) => parts.push(event.data);
    recorder.onstop = () => { const blob = new Blob(parts, { type: kind }); close(); taken(blob); };
    recorder.start(500);
    enable(false);
    let left = SECONDS;
    const count = () => {
      if (recorder?.state !== "recording") return;
      byId("camera-video").textContent = `Recording … ${left}`;
      if (left-- > 0) setTimeout(count, 1000);
      else recorder.stop();
    };
    count();
  });
}
