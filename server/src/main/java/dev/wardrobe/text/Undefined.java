package dev.wardrobe.text;

/**
 * A value that is not there. It prints as nothing, is false and empty; anything else done with it
 * fails with {@link #reason}.
 */
record Undefined(String reason) {

  static Undefined variable(String name) {
    return new Undefined("'" + name + "' is undefined");
  }

  static Undefined member(Object owner, Object key) {
    String type = owner == None.NONE ? "None" : Values.type(owner) + " object";
    if (key instanceof String || key instanceof Markup) {
      return new Undefined("'" + type + "' has no attribute " + Representation.repr(key));
    }
    return new Undefined("'" + type + "' has no element " + Representation.repr(key));
  }

  /** What stands in the place of an attribute that a template may not use. */
  static Undefined unsafe(Object owner, String name) {
    return new Undefined(
        "access to attribute '" + name + "' of '" + Values.type(owner) + "' object is unsafe.");
  }

  TemplateFailure failure() {
    return new TemplateFailure(reason);
  }

  /** Two undefined values are equal, whatever their reasons. */
  @Override
  public boolean equals(Object other) {
    return other instanceof Undefined;
  }

  @Override
  public int hashCode() {
    return 1;
  }
}
