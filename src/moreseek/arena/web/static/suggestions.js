// Questions to start from: those of the category, and one at random.
export function offer(place, byCategory, category, field, randomLabel) {
  const take = (text) => {
    field.value = text;
    field.focus();
  };
  const button = (label, text, className) => {
    const element = document.createElement("button");
    element.type = "button";
    element.className = className;
    element.textContent = label;
    element.addEventListener("click", () => take(text()));
    return element;
  };
  const draw = () => {
    const here = [...(byCategory[category?.value ?? ""] ?? []), ...(byCategory[""] ?? [])];
    const all = Object.values(byCategory).flat();
    const parts = here.slice(0, 4).map((text) => button(text, () => text, "quiet suggestion"));
    if (all.length) {
      const random = () => all[Math.floor(Math.random() * all.length)];
      parts.push(button(`↻ ${randomLabel}`, random, "quiet suggestion random"));
    }
    place.replaceChildren(...parts);
  };
  category?.addEventListener("change", draw);
  draw();
}
