// Requests to the server. A server with API keys answers 401: then the page asks for a key, once per tab.

const KEY = "loralab-key";
let asking = null;

function askForKey(problem) {
  asking ??= new Promise((resolve) => {
    const dialog = document.getElementById("key-dialog");
    const input = document.getElementById("key");
    document.getElementById("key-problem").textContent = problem;
    dialog.addEventListener(
      "close",
      () => {
        sessionStorage.setItem(KEY, input.value.trim());
        input.value = "";
        asking = null;
        resolve();
      },
      { once: true },
    );
    dialog.addEventListener("cancel", (event) => event.preventDefault());
    dialog.showModal();
  });
  return asking;
}

async function request(path, options = {}) {
  for (;;) {
    const key = sessionStorage.getItem(KEY);
    const headers = { ...options.headers, ...(key && { Authorization: `Bearer ${key}` }) };
    let response;
    try {
      response = await fetch(path, { ...options, headers });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Error("The server does not answer. Is it still running?");
    }
    if (response.status === 401) {
      await askForKey(key ? "The server does not know this key." : "");
      continue;
    }
    if (!response.ok) throw new Error(await problemOf(response));
    return response;
  }
}

async function problemOf(response) {
  try {
    const content = await response.json();
    const message = content.error?.message ?? content.detail ?? response.statusText;
    return message.charAt(0).toUpperCase() + message.slice(1);
  } catch {
    return `The server answered ${response.status} ${response.statusText}`;
  }
}

const query = (values) => {
  const pairs = Object.entries(values ?? {}).filter(([, value]) => value !== null && value !== undefined);
  return pairs.length ? `?${new URLSearchParams(pairs)}` : "";
};

export const get = async (path, values, signal) => (await request(path + query(values), { signal })).json();
export const getBlob = async (path) => (await request(path)).blob();
export const remove = (path) => request(path, { method: "DELETE" });
export const post = async (path, content, signal) =>
  (
    await request(path, {
      method: "POST",
      body: JSON.stringify(content),
      headers: { "Content-Type": "application/json" },
      signal,
    })
  ).json();
export const upload = async (path, values, file) =>
  (
    await request(path + query(values), {
      method: "POST",
      body: file,
      headers: { "Content-Type": "application/octet-stream" },
    })
  ).json();
