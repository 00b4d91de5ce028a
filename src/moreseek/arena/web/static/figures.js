// A board's pictures, fetched after the table one by one, each from its frame for other sites. Here they bear links.
const SVG = "http://www.w3.org/2000/svg";

for (const card of document.querySelectorAll("[data-figure]")) {
  await show(card).catch(() => {}); // the link to the frame stays
  delete card.dataset.figure;
}

async function show(card) {
  const answer = await fetch(card.dataset.figure);
  if (!answer.ok) return;
  const frame = new DOMParser().parseFromString(await answer.text(), "text/html");
  const drawn = document.adoptNode(frame.querySelector("svg.figure"));
  for (const group of drawn.querySelectorAll("[data-votes]")) group.replaceWith(linked(group));
  drawn.setAttribute("role", "group");
  const room = card.querySelector(".wide");
  room.replaceChildren(drawn);
  const note = frame.querySelector(".note");
  if (note) room.after(document.adoptNode(note));
  const code = card.querySelector("code");
  code.textContent = code.textContent.replace(/height="\d+"/, `height="${Math.ceil(drawn.getAttribute("height")) + 100}"`);
}

function linked(group) {
  const link = document.createElementNS(SVG, "a");
  link.setAttribute("href", group.dataset.votes);
  link.append(...group.childNodes);
  return link;
}
