// Questions to start from, each with its category (or none): those of the chosen one, and one at random.
export function offer(place, all, category, field, randomLabel) {
  const take = ([name, text]) => {
    field.value = text;
    if (name && category) category.value = name;
    field.focus();
  };
  const button = (label, pick, className) => {
    const element = document.createElement("button");
    element.type = "button";
    element.className = className;
    element.textContent = label;
    element.addEventListener("click", () => take(pick()));
    return element;
  };
  const draw = () => {
    const chosen = category?.value ?? "";
    const here = [...all.filter(([name]) => name && name === chosen), ...all.filter(([name]) => !name)];
    const parts = here.slice(0, 4).map((one) => button(one[1], () => one, "quiet suggestion"));
    if (all.length) {
      const random = () => all[Math.floor(Math.random() * all.length)];
      parts.push(button(`↻ ${randomLabel}`, random, "quiet suggestion random"));
    }
    place.replaceChildren(...parts);
  };
  category?.addEventListener("change", draw);
  draw();
}
