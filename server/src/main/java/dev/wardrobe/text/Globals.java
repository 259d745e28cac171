package dev.wardrobe.text;

import java.math.BigInteger;
import java.time.Clock;
import java.time.LocalDateTime;
import java.util.HashMap;
import java.util.Iterator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/** The functions that every chat template can call. */
final class Globals {

  private Globals() {}

  static Map<String, Object> of(Clock clock) {
    Map<String, Object> globals = new HashMap<>();
    globals.put("range", (Callable) Range::of);
    globals.put("dict", (Callable) Globals::dict);
    globals.put("namespace", (Callable) Namespace::of);
    globals.put("cycler", (Callable) arguments -> new Cycler(arguments.positional()));
    globals.put("joiner", (Callable) Globals::joiner);
    globals.put(
        "raise_exception",
        (Callable)
            arguments -> {
              Object message = arguments.bind("raise_exception", "message").required("message");
              throw TemplateFailure.raised(Representation.str(message));
            });
    globals.put(
        "strftime_now",
        (Callable)
            arguments ->
                Strftime.format(
                    arguments.bind("strftime_now", "format").text("format"),
                    LocalDateTime.now(clock)));
    return globals;
  }

  /** {@code dict(mapping, name=value)}; the mapping may be a sequence of pairs. */
  static Map<Object, Object> dict(Arguments arguments) {
    Map<Object, Object> dict = new LinkedHashMap<>();
    if (arguments.positional().size() > 1) {
      throw new TemplateFailure(
          "dict expected at most 1 argument, got " + arguments.positional().size());
    }
    for (Object source : arguments.positional()) {
      if (source instanceof Map<?, ?> map) {
        dict.putAll(map);
        continue;
      }
      if (source instanceof Namespace namespace) {
        dict.putAll(namespace.attributes());
        continue;
      }
      Iterator<Object> pairs = Values.iterate(source);
      while (pairs.hasNext()) {
        List<Object> pair = Values.list(pairs.next());
        if (pair.size() != 2) {
          throw new TemplateFailure(
              "dictionary update sequence element has length " + pair.size() + "; 2 is required");
        }
        Values.put(dict, pair.getFirst(), pair.getLast());
      }
    }
    dict.putAll(arguments.named());
    Budget.steps(dict.size());
    return dict;
  }

  static Object fromKeys(Arguments arguments) {
    Arguments.Bound bound = arguments.bind("fromkeys", "iterable", "value");
    Map<Object, Object> dict = new LinkedHashMap<>();
    for (Object key : Values.list(bound.required("iterable"))) {
      Values.put(dict, key, bound.or("value", None.NONE));
    }
    return dict;
  }

  /** A mapping's entries as named arguments. */
  static Map<String, Object> names(Object mapping, String what) {
    if (!(mapping instanceof Map<?, ?> map)) {
      throw new TemplateFailure(what + " must be a mapping, not " + Values.type(mapping));
    }
    Map<String, Object> names = new LinkedHashMap<>();
    for (Map.Entry<?, ?> entry : map.entrySet()) {
      if (!(entry.getKey() instanceof String name)) {
        throw new TemplateFailure("keywords must be strings");
      }
      names.put(name, entry.getValue());
    }
    return names;
  }

  private static Callable joiner(Arguments arguments) {
    Object separator = arguments.bind("joiner", "sep").or("sep", ", ");
    boolean[] used = new boolean[1];
    return ignored -> {
      Object result = used[0] ? separator : "";
      used[0] = true;
      return result;
    };
  }

  /** Gives its items in turn, over and over. */
  static final class Cycler {

    private final List<Object> items;
    private int position;

    Cycler(List<Object> items) {
      if (items.isEmpty()) {
        throw new TemplateFailure("at least one item has to be provided");
      }
      this.items = items;
    }

    @Nullable Object attribute(String name) {
      return switch (name) {
        case "current" -> items.get(position);
        case "pos" -> BigInteger.valueOf(position);
        case "next" ->
            (Callable)
                arguments -> {
                  Object item = items.get(position);
                  position = (position + 1) % items.size();
                  return item;
                };
        case "reset" ->
            (Callable)
                arguments -> {
                  position = 0;
                  return None.NONE;
                };
        default -> null;
      };
    }
  }
}
