// The dialog of settings. What is chosen holds from the next answer on.
import { get } from "./dom.js";
import { choose, chosen } from "./preferences.js";

const NUMBERS = { temperature: [0, 2], maxTokens: [1, 1_000_000] };

export function applyTheme() {
  if (chosen.theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = chosen.theme;
}

function fill() {
  for (const name of Object.keys(NUMBERS)) get(name).value = chosen[name] ?? "";
  for (const name of ["thinking", "documents", "system", "theme", "language"]) get(name).value = chosen[name];
}

// spoken(): the language has changed
export function listen(spoken) {
  const dialog = get("settings");
  get("open-settings").addEventListener("click", () => [fill(), dialog.showModal()]);
  get("close-settings").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  for (const [name, [least, most]] of Object.entries(NUMBERS)) {
    get(name).addEventListener("change", ({ target }) => {
      const value = target.value === "" || !target.validity.valid ? null : Math.min(most, Math.max(least, Number(target.value)));
      target.value = value ?? "";
      choose({ [name]: value });
    });
  }
  get("thinking").addEventListener("change", ({ target }) => choose({ thinking: target.value }));
  get("documents").addEventListener("change", ({ target }) => choose({ documents: target.value }));
  get("system").addEventListener("input", ({ target }) => choose({ system: target.value }));
  get("theme").addEventListener("change", ({ target }) => [choose({ theme: target.value }), applyTheme()]);
  const speakIn = (language) => [choose({ language }), spoken()];
  get("language").addEventListener("change", ({ target }) => speakIn(target.value));
  get("other-language").addEventListener("click", () => speakIn(chosen.language === "en" ? "zh" : "en"));
}
