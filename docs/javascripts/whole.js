// A browser may break a line after any hyphen and any space. What is short stays whole: names and options, numbers with
// their errors, and the options of a command that is shown in several lines.
for (const code of document.querySelectorAll(".md-typeset :not(pre) > code")) {
  code.classList.toggle("whole", code.textContent.length <= 24);
}
for (const cell of document.querySelectorAll(".md-typeset td")) {
  cell.classList.toggle("whole", /^[^\n]{1,16}±[^\n]{1,16}$/.test(cell.textContent));
}
for (const command of document.querySelectorAll(".md-typeset .language-bash pre > code")) {
  command.innerHTML = command.innerHTML.replace(/--[a-z]+(-[a-z]+)*/g, '<span class="whole">$&</span>');
}
