package dev.wardrobe.text;

import java.math.BigInteger;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/** The evaluated arguments of a call, filter or test, in Python's two kinds. */
record Arguments(List<Object> positional, Map<String, Object> named) {

  static final Arguments NONE = new Arguments(List.of(), Map.of());

  static Arguments of(Object... positional) {
    return new Arguments(List.of(positional), Map.of());
  }

  /** Assigns the arguments to parameters by place and by name, as Python does. */
  Bound bind(String function, String... parameters) {
    if (positional.size() > parameters.length) {
      throw new TemplateFailure(
          function
              + "() takes at most "
              + parameters.length
              + " arguments, got "
              + positional.size());
    }
    Map<String, Object> values = new LinkedHashMap<>();
    for (int i = 0; i < positional.size(); i++) {
      values.put(parameters[i], positional.get(i));
    }
    for (Map.Entry<String, Object> argument : named.entrySet()) {
      String name = argument.getKey();
      if (!List.of(parameters).contains(name)) {
        throw new TemplateFailure(
            function + "() got an unexpected keyword argument '" + name + "'");
      }
      if (values.putIfAbsent(name, argument.getValue()) != null) {
        throw new TemplateFailure(function + "() got multiple values for argument '" + name + "'");
      }
    }
    return new Bound(function, values);
  }

  /** These arguments without the first {@code count} positional ones. */
  Arguments after(int count) {
    return new Arguments(positional.subList(count, positional.size()), named);
  }

  /** These arguments with another in front. */
  Arguments behind(Object first) {
    List<Object> all = new ArrayList<>();
    all.add(first);
    all.addAll(positional);
    return new Arguments(all, named);
  }

  /** Arguments by parameter name. */
  record Bound(String function, Map<String, Object> values) {

    boolean has(String name) {
      return values.containsKey(name);
    }

    Object required(String name) {
      Object value = values.get(name);
      if (value == null) {
        throw new TemplateFailure(function + "() is missing its argument '" + name + "'");
      }
      return value;
    }

    Object or(String name, Object otherwise) {
      Object value = values.get(name);
      return value == null ? otherwise : value;
    }

    /** The argument, or null where it is absent or none. */
    @Nullable Object orNull(String name) {
      Object value = values.get(name);
      return value == None.NONE ? null : value;
    }

    boolean flag(String name, boolean otherwise) {
      Object value = values.get(name);
      return value == null ? otherwise : Values.truth(value);
    }

    int integer(String name, int otherwise) {
      Object value = values.get(name);
      return value == null ? otherwise : Values.index(value);
    }

    BigInteger big(String name) {
      return Values.integer(required(name));
    }

    String text(String name) {
      return Values.text(required(name));
    }

    String text(String name, String otherwise) {
      Object value = values.get(name);
      return value == null ? otherwise : Values.text(value);
    }
  }
}
