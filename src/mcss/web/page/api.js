// Requests to the server. Failures are thrown as an Error whose message is for the visitor.

export async function ask(path, options = {}) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not answer. Is mcss serve still running?");
  }
  let answer;
  try {
    answer = await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error; // stopped while the answer was arriving
    throw new Error("The server sent an answer that cannot be read. Is mcss serve still running?");
  }
  if (!response.ok) throw new Error(sentence(answer.error || "Something went wrong."));
  return answer;
}

// Uploads a file and returns what the model predicts. `report` is called with the progress in words and, once it is known,
// as a share from 0 to 1; `signal` cancels.
export async function analyse(file, box, limits, report, signal) {
  if (file.size > limits.upload_mb * 1e6) {
    throw new Error(
      `This file has ${(file.size / 1e6).toFixed(0)} MB; the limit is ${limits.upload_mb} MB. Make it smaller or shorter.`,
    );
  }
  if (!file.size) throw new Error("The file is empty (0 bytes). Choose another.");
  report("Analysing …");
  const since = performance.now();
  const job = crypto.getRandomValues(new Uint32Array(4)).join("-");
  const watch = setInterval(async () => {
    const spent = `Analysing … ${((performance.now() - since) / 1000).toFixed(0)} s`;
    try {
      const { waiting, share } = await ask(`/api/queue?job=${job}`, { signal });
      if (share !== null) report(`${spent}, ${(100 * share).toFixed(0)} %`, share);
      else report(waiting > 1 ? `${spent}, ${waiting - 1} other ${waiting > 2 ? "files are" : "file is"} in the queue` : spent);
    } catch {
      /* the upload itself reports errors */
    }
  }, 700);
  try {
    const query = box ? `&box=${box.map((v) => v.toFixed(5)).join(",")}` : "";
    return await ask(`/api/results?job=${job}${query}`, {
      method: "POST",
      body: file,
      headers: { "content-type": "application/octet-stream" },
      signal,
    });
  } finally {
    clearInterval(watch);
  }
}

// Shows in a line of the page how far the work is; without a share the bar only moves.
export function showProgress(line, text, share) {
  line.querySelector(".busy-text").textContent = text;
  const bar = line.querySelector("progress");
  if (share === undefined) bar.removeAttribute("value");
  else bar.value = share;
}

function sentence(text) {
  const whole = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(whole) ? whole : `${whole}.`;
}

// Creates an element with text and children; text from outside is never parsed as HTML.
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

export const byId = (id) => document.getElementById(id);
