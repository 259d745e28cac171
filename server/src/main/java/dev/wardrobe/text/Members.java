package dev.wardrobe.text;

import java.math.BigInteger;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.jspecify.annotations.Nullable;

/**
 * What a value has after a dot and between brackets. Only what is listed here can be reached: no
 * dunder attributes, and nothing that changes a value.
 */
final class Members {

  private static final Set<String> LIST_CHANGES =
      Set.of("append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort");
  private static final Set<String> DICT_CHANGES =
      Set.of("clear", "pop", "popitem", "setdefault", "update");

  private Members() {}

  /** {@code owner.name}: an attribute, else an item of that name. */
  static Object attribute(Object owner, String name) {
    Object attribute = own(owner, name);
    if (attribute != null) {
      return attribute;
    }
    Object item = itemOrNull(owner, name);
    return item != null ? item : Undefined.member(owner, name);
  }

  /** {@code owner[key]}: an item, else an attribute of that name. */
  static Object item(Object owner, Object key) {
    Object item = itemOrNull(owner, key);
    if (item != null) {
      return item;
    }
    if (Values.isText(key)) {
      Object attribute = own(owner, Values.text(key));
      if (attribute != null) {
        return attribute;
      }
    }
    return Undefined.member(owner, key);
  }

  /** An attribute that is not an item. */
  static Object attributeOnly(Object owner, String name) {
    Object attribute = own(owner, name);
    return attribute != null ? attribute : Undefined.member(owner, name);
  }

  /** The attribute that Python's type has, or null. */
  private static @Nullable Object own(Object owner, String name) {
    if (owner instanceof Undefined undefined) {
      throw undefined.failure();
    }
    if (name.startsWith("__")) {
      // A dict may have such a key, and Python's types have only some of these attributes.
      return owner instanceof Map<?, ?> map && map.containsKey(name)
          ? null
          : Undefined.unsafe(owner, name);
    }
    return switch (owner) {
      case String text -> StringMethods.find(text, name);
      case Markup markup -> markup(StringMethods.find(markup.text(), name));
      case List<?> list -> list(Values.sequence(list), list, name);
      case Tuple tuple ->
          tuple.names().contains(name)
              ? tuple.items().get(tuple.names().indexOf(name))
              : search(tuple.items(), name);
      case Map<?, ?> map -> dict(Values.dict(map), name);
      case BigInteger integer -> integer(integer, name);
      case Boolean flag -> integer(Values.integer(flag), name);
      case Double number -> real(number, name);
      case Namespace namespace -> namespace.attributes().get(name);
      case Loop loop -> loop.attribute(name);
      case Macro macro -> macro.attribute(name);
      case Globals.Cycler cycler -> cycler.attribute(name);
      case Range range -> range(range, name);
      default -> null;
    };
  }

  private static @Nullable Object markup(@Nullable Callable method) {
    if (method == null) {
      return null;
    }
    return (Callable)
        arguments -> {
          return marked(method.call(arguments));
        };
  }

  private static Object marked(Object value) {
    return switch (value) {
      case String text -> new Markup(text);
      case List<?> list -> list.stream().map(Members::marked).toList();
      case Tuple tuple -> new Tuple(tuple.items().stream().map(Members::marked).toList());
      default -> value;
    };
  }

  private static @Nullable Object list(@Nullable List<Object> items, Object owner, String name) {
    if (LIST_CHANGES.contains(name)) {
      return Undefined.unsafe(owner, name);
    }
    if (items == null) {
      return null;
    }
    if (name.equals("copy")) {
      return (Callable) arguments -> Values.list(items);
    }
    return search(items, name);
  }

  private static @Nullable Object search(List<Object> items, String name) {
    return switch (name) {
      case "count" ->
          (Callable)
              arguments -> {
                Object wanted = arguments.bind("count", "value").required("value");
                return BigInteger.valueOf(
                    items.stream().filter(item -> Values.equal(item, wanted)).count());
              };
      case "index" ->
          (Callable)
              arguments -> {
                Object wanted = arguments.bind("index", "value").required("value");
                for (int i = 0; i < items.size(); i++) {
                  if (Values.equal(items.get(i), wanted)) {
                    return BigInteger.valueOf(i);
                  }
                }
                throw new TemplateFailure(Representation.repr(wanted) + " is not in list");
              };
      default -> null;
    };
  }

  private static @Nullable Object dict(Map<Object, Object> map, String name) {
    if (DICT_CHANGES.contains(name)) {
      return Undefined.unsafe(map, name);
    }
    return switch (name) {
      case "get" ->
          (Callable)
              arguments -> {
                Arguments.Bound bound = arguments.bind("get", "key", "default");
                Object value = Values.lookUp(map, bound.required("key"));
                return value != null ? value : bound.or("default", None.NONE);
              };
      case "keys" ->
          (Callable) arguments -> new DictView("dict_keys", new ArrayList<>(map.keySet()));
      case "values" ->
          (Callable) arguments -> new DictView("dict_values", new ArrayList<>(map.values()));
      case "items" -> (Callable) arguments -> items(map);
      case "copy" -> (Callable) arguments -> new LinkedHashMap<>(map);
      case "fromkeys" -> (Callable) Globals::fromKeys;
      default -> null;
    };
  }

  static DictView items(Map<Object, Object> map) {
    Budget.steps(map.size());
    List<Object> items = new ArrayList<>(map.size());
    map.forEach((key, value) -> items.add(Tuple.of(key, value)));
    return new DictView("dict_items", items);
  }

  private static @Nullable Object integer(BigInteger integer, String name) {
    return switch (name) {
      case "real", "numerator" -> integer;
      case "imag" -> BigInteger.ZERO;
      case "denominator" -> BigInteger.ONE;
      case "bit_length" -> (Callable) arguments -> BigInteger.valueOf(integer.abs().bitLength());
      case "is_integer" -> (Callable) arguments -> true;
      case "conjugate" -> (Callable) arguments -> integer;
      default -> null;
    };
  }

  private static @Nullable Object real(double number, String name) {
    return switch (name) {
      case "real" -> number;
      case "imag" -> 0.0;
      case "is_integer" -> (Callable) arguments -> number == Math.rint(number);
      case "conjugate" -> (Callable) arguments -> number;
      default -> null;
    };
  }

  private static @Nullable Object range(Range range, String name) {
    return switch (name) {
      case "start" -> range.start();
      case "stop" -> range.stop();
      case "step" -> range.step();
      default -> search(range.items(), name);
    };
  }

  private static @Nullable Object itemOrNull(Object owner, Object key) {
    return switch (owner) {
      case Undefined undefined -> throw undefined.failure();
      case Map<?, ?> map ->
          key instanceof List || key instanceof Map ? null : Values.lookUp(map, key);
      case String text -> character(text, key);
      case Markup markup ->
          character(markup.text(), key) instanceof String c ? new Markup(c) : null;
      case List<?> list -> element(Values.sequence(list), key);
      case Tuple tuple -> element(tuple.items(), key);
      case Range range -> element(range.items(), key);
      default -> null;
    };
  }

  private static @Nullable Object element(@Nullable List<Object> items, Object key) {
    if (items == null || !Values.isInteger(key)) {
      return null;
    }
    int index = Values.index(key);
    int at = index < 0 ? index + items.size() : index;
    return at < 0 || at >= items.size() ? null : items.get(at);
  }

  private static @Nullable Object character(String text, Object key) {
    if (!Values.isInteger(key)) {
      return null;
    }
    Budget.steps(text.length() / 64);
    int length = PythonText.length(text);
    int index = Values.index(key);
    int at = index < 0 ? index + length : index;
    return at < 0 || at >= length ? null : PythonText.between(text, at, at + 1);
  }

  /** {@code owner[start:stop:step]}; a null bound is an absent one. */
  static Object slice(
      Object owner, @Nullable Object start, @Nullable Object stop, @Nullable Object step) {
    if (owner instanceof Undefined undefined) {
      throw undefined.failure();
    }
    int stride = step == null || step == None.NONE ? 1 : sliceIndex(step);
    if (stride == 0) {
      throw new TemplateFailure("slice step cannot be zero");
    }
    return switch (owner) {
      case String text -> slice(text, start, stop, stride);
      case Markup markup -> new Markup(slice(markup.text(), start, stop, stride));
      case List<?> list -> slice(Values.list(list), start, stop, stride);
      case Tuple tuple -> new Tuple(slice(tuple.items(), start, stop, stride));
      case Range range -> slice(range, start, stop, stride);
      case Map<?, ?> map -> throw new TemplateFailure("unhashable type: 'slice'");
      default ->
          throw new TemplateFailure("'" + Values.type(owner) + "' object is not subscriptable");
    };
  }

  private static @Nullable Object bound(@Nullable Object value) {
    return value == None.NONE ? null : value;
  }

  private static String slice(
      String text, @Nullable Object start, @Nullable Object stop, int stride) {
    int length = PythonText.length(text);
    Budget.text(length);
    if (stride == 1) {
      int from = limit(start, 0, length, 0, length);
      int to = limit(stop, length, length, 0, length);
      return PythonText.between(text, from, to);
    }
    StringBuilder out = new StringBuilder();
    int[] characters = text.codePoints().toArray();
    for (int i : indices(length, start, stop, stride)) {
      out.appendCodePoint(characters[i]);
    }
    return out.toString();
  }

  private static List<Object> slice(
      List<Object> items, @Nullable Object start, @Nullable Object stop, int stride) {
    List<Object> out = new ArrayList<>();
    int[] indices = indices(items.size(), start, stop, stride);
    Budget.steps(indices.length);
    for (int i : indices) {
      out.add(items.get(i));
    }
    return out;
  }

  private static Object slice(
      Range range, @Nullable Object start, @Nullable Object stop, int stride) {
    int length = range.items().size();
    boolean forward = stride > 0;
    int low = forward ? 0 : -1;
    int high = forward ? length : length - 1;
    int from = limit(start, forward ? low : high, length, low, high);
    int to = limit(stop, forward ? high : low, length, low, high);
    BigInteger step = range.step();
    return new Range(
        range.start().add(step.multiply(BigInteger.valueOf(from))),
        range.start().add(step.multiply(BigInteger.valueOf(to))),
        step.multiply(BigInteger.valueOf(stride)));
  }

  private static int[] indices(
      int length, @Nullable Object start, @Nullable Object stop, int stride) {
    boolean forward = stride > 0;
    int low = forward ? 0 : -1;
    int high = forward ? length : length - 1;
    long from = limit(start, forward ? low : high, length, low, high);
    long to = limit(stop, forward ? high : low, length, low, high);
    int count =
        (int)
            Math.max(
                0,
                forward
                    ? (to - from + stride - 1) / stride
                    : (from - to - stride - 1L) / -(long) stride);
    int[] indices = new int[count];
    for (int i = 0; i < count; i++) {
      indices[i] = (int) (from + (long) i * stride);
    }
    return indices;
  }

  private static int limit(@Nullable Object value, int absent, int length, int low, int high) {
    if (bound(value) == null) {
      return absent;
    }
    int index = sliceIndex(value);
    long at = index < 0 ? (long) index + length : index;
    return Math.clamp(at, low, Math.max(low, high));
  }

  private static int sliceIndex(@Nullable Object value) {
    if (value == null || !Values.isInteger(value)) {
      if (value instanceof Undefined undefined) {
        throw undefined.failure();
      }
      throw new TemplateFailure(
          "slice indices must be integers or None or have an __index__ method");
    }
    return Values.index(value);
  }
}
