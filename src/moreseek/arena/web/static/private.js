// What looks like an e-mail address, a phone number, a card, an identity number or a key, before it is sent.
const SHAPES = [
  /[\w.+-]+@[\w-]+\.\w{2,}/,
  /(?<!\d)(?:\+\d{1,3}[ -]?)?(?:\d[ -]?){10,16}(?!\d)/,
  /(?<!\d)\d{17}[\dXx](?![\dA-Za-z])/,
  /\b(?:sk|pk|ghp|gho|xox[bp]|AKIA|hf)[-_]?[\w-]{16,}/,
  /-----BEGIN [A-Z ]*PRIVATE KEY-----/,
];

export function looksPrivate(text) {
  return SHAPES.some((shape) => shape.test(text));
}
