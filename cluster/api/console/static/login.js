// The code is behind the #, which browsers send to nobody and keep out of the history here.
const code = location.hash.slice(1);
if (code) {
  history.replaceState(null, "", "/");
  const form = document.querySelector("form");
  form.elements.code.value = code;
  form.submit();
}
