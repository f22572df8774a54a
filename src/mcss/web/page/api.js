// Questions to the server; what goes wrong comes back as an Error whose message is for the visitor.

export async function ask(path, options = {}) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not answer. Is mcss serve still running?");
  }
  let found;
  try {
    found = await response.json();
  } catch {
    throw new Error("The server's answer cannot be read. Is mcss serve still running?");
  }
  if (!response.ok) throw new Error(sentence(found.error || "Something went wrong."));
  return found;
}

// Sends a file; `told` hears how far it is, in words.
export async function look(file, box, limits, told) {
  if (file.size > limits.upload_mb * 1e6) {
    throw new Error(
      `This file has ${(file.size / 1e6).toFixed(0)} MB; the limit is ${limits.upload_mb} MB. Make it smaller or shorter.`,
    );
  }
  if (!file.size) throw new Error("The file is empty (0 bytes). Choose another.");
  told("Looking …");
  const watch = setInterval(async () => {
    try {
      const { waiting } = await ask("/api/queue");
      told(waiting > 1 ? `Looking … ${waiting - 1} ${waiting > 2 ? "others are" : "other is"} being served too` : "Looking …");
    } catch {
      /* the answer itself will tell */
    }
  }, 1500);
  try {
    const query = box ? `?box=${box.map((v) => v.toFixed(5)).join(",")}` : "";
    return await ask(`/api/looks${query}`, {
      method: "POST",
      body: file,
      headers: { "content-type": "application/octet-stream" },
    });
  } finally {
    clearInterval(watch);
  }
}

function sentence(text) {
  const whole = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(whole) ? whole : `${whole}.`;
}

// An element with text and children; nothing that comes from outside is ever read as HTML.
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
