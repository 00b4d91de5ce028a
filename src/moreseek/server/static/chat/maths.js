// Two additions to Markdown: formulas between $…$, $$…$$, \(…\), \[…\], and bold beside Chinese punctuation.
// (Bounded, since a text of nothing but openings would be searched to its end at each.)
const DISPLAY = /^(?:\$\$((?:\\.|[^$\\]){1,3000}?)\$\$|\\\[([\s\S]{1,3000}?)\\\])/;
const LINES = new RegExp(`^ {0,3}${DISPLAY.source.slice(1)}[ \\t]*(?:\\n+|$)`); // alone on its lines
// "$5 and $10" is money: a formula does not begin or end with a space, nor is its end followed by a digit.
const INLINE = /^(?:\$(?![\s$])((?:\\.|[^$\\\n]){0,1000}?(?:\\.|[^$\\\s]))\$(?!\d)|\\\(([\s\S]{1,1000}?)\\\))/;
// Markdown's own rule leaves the asterisks of **答案：**42, since the sign before them is no letter.
const STRONG = /^\*\*(?![\s*])((?:[^*`\\$]|\\.){1,1000}?)(?<!\s)\*\*(?!\*)/;

const startOf = (signs) => (source) => {
  const found = source.search(signs);
  return found < 0 ? undefined : found;
};

const formula = (name, level, rule, signs, kind, escaped) => ({
  name, level, start: startOf(signs),
  tokenizer(source) {
    const found = rule.exec(source);
    return found ? { type: name, raw: found[0], text: (found[1] ?? found[2]).trim() } : undefined;
  },
  renderer: ({ text }) => `<span class="${kind}">${escaped(text)}</span>`,
}); // prettier-ignore

export const formulasAndBold = (escaped) => [
  formula("displayBlock", "block", LINES, /\n {0,3}(?:\$\$|\\\[)/, "maths display", escaped),
  formula("display", "inline", DISPLAY, /\$\$|\\\[/, "maths display", escaped),
  formula("inlineMaths", "inline", INLINE, /\$|\\\(/, "maths", escaped),
  {
    name: "boldBesideChinese", level: "inline", start: startOf(/\*\*/),
    tokenizer(source) {
      const found = STRONG.exec(source);
      return found ? { type: "strong", raw: found[0], text: found[1], tokens: this.lexer.inlineTokens(found[1]) } : undefined;
    },
  },
]; // prettier-ignore
