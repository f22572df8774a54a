import { ask, byId } from "./api.js";
import { useCamera } from "./camera.js";
import { Comparing } from "./comparing.js";
import { Looking } from "./looking.js";

// A place that takes files by hand or by dropping.
function takesFiles(zone, input, taken) {
  const label = input.closest("label");
  label.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") { event.preventDefault(); input.click(); }
  });
  input.addEventListener("change", () => {
    if (input.files.length) taken(input.files[0]);
    input.value = "";
  });
  zone.addEventListener("dragover", (event) => { event.preventDefault(); zone.classList.add("over"); });
  zone.addEventListener("dragleave", () => zone.classList.remove("over"));
  zone.addEventListener("drop", (event) => {
    event.preventDefault();
    zone.classList.remove("over");
    if (event.dataTransfer.files.length) taken(event.dataTransfer.files[0]);
  });
}

function showTab(name) {
  for (const tab of ["look", "compare"]) {
    byId(tab).hidden = tab !== name;
    byId(`tab-${tab}`).setAttribute("aria-selected", tab === name);
  }
}

try {
  const about = await ask("/api/about");
  const { limits } = about;
  byId("limits").textContent =
    `JPEG, PNG, WebP, BMP, TIFF; MP4, MOV, WebM, MKV, AVI. Up to ${limits.upload_mb} MB, ${limits.megapixels} megapixels, ${limits.seconds} s. ` +
    "Files go to the computer that runs mcss and nowhere else, and are deleted once they have been looked at.";
  byId("about").textContent =
    `mcss ${about.version} · model: ${about.model}` + (about.gallery ? ` · gallery: ${about.gallery.name}, ${about.gallery.images.toLocaleString("en")} images` : " · no gallery to search in");
  const looking = new Looking(about), comparing = new Comparing(about);
  takesFiles(byId("drop"), byId("file"), (file) => looking.send(file));
  for (const which of ["a", "b"]) takesFiles(byId(`slot-${which}`), byId(`file-${which}`), (file) => comparing.send(which, file));
  useCamera((blob) => looking.send(blob));
  for (const tab of ["look", "compare"]) byId(`tab-${tab}`).addEventListener("click", () => showTab(tab));
  byId("home").addEventListener("click", (event) => { event.preventDefault(); location.reload(); });
  // A file dropped beside a zone must not make the browser leave the page.
  for (const name of ["dragover", "drop"]) window.addEventListener(name, (event) => event.preventDefault());
  document.body.dataset.ready = "yes";
} catch (error) {
  byId("alert").textContent = error.message;
  byId("alert").hidden = false;
}
