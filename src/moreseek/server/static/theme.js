// Read before the page is drawn, so that it does not flash in the other theme.
try {
  const { theme, language } = JSON.parse(localStorage.getItem("moreseek")) ?? {};
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
  if (language === "zh" || language === "en") document.documentElement.lang = language;
} catch {
  // nothing chosen yet
}
