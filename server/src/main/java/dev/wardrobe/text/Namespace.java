package dev.wardrobe.text;

import java.util.LinkedHashMap;
import java.util.Map;

/** The one kind of value that a template can change, by {@code set ns.name = value}. */
final class Namespace {

  private final Map<String, Object> attributes = new LinkedHashMap<>();

  static Namespace of(Arguments arguments) {
    Namespace namespace = new Namespace();
    Globals.dict(arguments).forEach((key, value) -> namespace.set(Values.text(key), value));
    return namespace;
  }

  Map<String, Object> attributes() {
    return attributes;
  }

  void set(String name, Object value) {
    if (name.startsWith("_")) {
      throw new TemplateFailure(
          "chat templates cannot store underscore-prefixed attributes on a namespace, but got '"
              + name
              + "'");
    }
    attributes.put(name, value);
  }
}
