// Light or dark: as the system says, until somebody chooses; the choice stays in this browser.
const root = document.documentElement;
const kept = localStorage.getItem("arena-theme");
if (kept) root.dataset.theme = kept;

document.getElementById("theme")?.addEventListener("click", () => {
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  localStorage.setItem("arena-theme", root.dataset.theme);
});
