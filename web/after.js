// Have a function called after a method, with its object.
export function after(object, method, then) {
  const before = object[method];
  object[method] = function () {
    const result = before?.apply(this, arguments);
    then(this);
    return result;
  };
}
