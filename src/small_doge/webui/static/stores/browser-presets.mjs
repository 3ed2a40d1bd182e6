// Presets in this browser: those of a page without a server, and those that earlier versions kept here in any case.

const KEY = "small-doge.presets";

export function readBrowserPresets() {
  try {
    const saved = JSON.parse(localStorage.getItem(KEY) ?? "[]");
    return Array.isArray(saved) ? saved.filter((preset) => typeof preset?.name === "string") : [];
  } catch {
    return [];
  }
}

export function writeBrowserPresets(presets) {
  if (presets.length) localStorage.setItem(KEY, JSON.stringify(presets));
  else localStorage.removeItem(KEY);
}
