// What a person has chosen, kept in this browser. The API key is kept in this tab only.
const NAME = "moreseek";
const START = {
  language: null, theme: "system", model: null, second: null, compare: false,
  temperature: null, maxTokens: null, thinking: "model", documents: "on", system: "",
}; // prettier-ignore

function read() {
  try {
    return { ...START, ...JSON.parse(localStorage.getItem(NAME)) };
  } catch {
    return { ...START };
  }
}

export const chosen = read();
chosen.language ??= navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en";

export function choose(changes) {
  Object.assign(chosen, changes);
  try {
    localStorage.setItem(NAME, JSON.stringify(chosen));
  } catch {
    // Where nothing may be kept, the choice holds until the page is closed.
  }
}

let keyHere = "";
try {
  keyHere = sessionStorage.getItem("moreseek-key") ?? "";
} catch {
  // no storage: the key is asked for at every visit
}
export const key = () => keyHere;

export function keepKey(value) {
  keyHere = value;
  try {
    sessionStorage.setItem("moreseek-key", value);
  } catch {
    // as above
  }
}
