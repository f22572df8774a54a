import { ask, byId } from "./api.js";
import { useCamera } from "./camera.js";
import { ComparisonView } from "./comparison_view.js";
import { AnalysisView } from "./analysis_view.js";

// Lets a visitor choose a file for a zone, or drop one there.
function acceptFiles(zone, input, taken) {
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
  for (const tab of ["analyse", "compare"]) {
    byId(tab).hidden = tab !== name;
    byId(`tab-${tab}`).setAttribute("aria-selected", tab === name);
    byId(`tab-${tab}`).tabIndex = tab === name ? 0 : -1;
  }
}

// Lets the arrow keys, Home and End change between tabs, as readers of pages without a mouse expect.
function useTabKeys() {
  byId("tab-analyse").parentElement.addEventListener("keydown", (event) => {
    const name = { ArrowLeft: "analyse", Home: "analyse", ArrowRight: "compare", End: "compare" }[event.key];
    if (!name) return;
    event.preventDefault();
    showTab(name);
    byId(`tab-${name}`).focus();
  });
}

try {
  const about = await ask("/api/about");
  const { limits } = about;
  byId("limits").textContent =
    `JPEG, PNG, WebP, BMP, TIFF; MP4, MOV, WebM, MKV, AVI. Up to ${limits.upload_mb} MB, ${limits.megapixels} megapixels, ${limits.seconds} s. ` +
    "Files are sent only to the computer that runs mcss, and are deleted once they have been analysed.";
  byId("about").textContent =
    `mcss ${about.version} · model: ${about.model}` + (about.gallery ? ` · gallery: ${about.gallery.name}, ${about.gallery.images.toLocaleString("en")} images` : " · no gallery to search");
  const analysis = new AnalysisView(about), comparison = new ComparisonView(about);
  acceptFiles(byId("drop"), byId("file"), (file) => analysis.send(file));
  for (const which of ["a", "b"]) acceptFiles(byId(`slot-${which}`), byId(`file-${which}`), (file) => comparison.send(which, file));
  useCamera((blob) => analysis.send(blob));
  for (const tab of ["analyse", "compare"]) byId(`tab-${tab}`).addEventListener("click", () => showTab(tab));
  useTabKeys();
  byId("home").addEventListener("click", (event) => { event.preventDefault(); location.assign(location.pathname); });
  // A file that misses the zone must not make the browser leave the page.
  for (const name of ["dragover", "drop"]) window.addEventListener(name, (event) => event.preventDefault());
  // What the address names is shown: Back, Forward and Reload lead to it.
  const restore = () => {
    const [first, ...names] = location.hash.slice(1).split(",");
    showTab(first === "compare" ? "compare" : "analyse");
    return first === "compare" ? comparison.restore(names) : analysis.restore();
  };
  window.addEventListener("popstate", restore);
  if (location.hash.length > 1) await restore();
  document.body.dataset.ready = "yes";
} catch (error) {
  byId("alert").textContent = error.message;
  byId("alert").hidden = false;
}
