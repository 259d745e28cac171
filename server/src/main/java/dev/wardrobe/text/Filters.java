package dev.wardrobe.text;

import java.math.BigDecimal;
import java.math.BigInteger;
import java.math.RoundingMode;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Collections;
import java.util.Comparator;
import java.util.HexFormat;
import java.util.Iterator;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.NoSuchElementException;
import java.util.Set;
import java.util.function.Function;
import java.util.function.Predicate;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.jspecify.annotations.Nullable;

/** Jinja's filters, and {@code tojson} as transformers defines it. */
final class Filters {

  /** Filters that Jinja has and this does not: HTML, randomness, Python's own pretty printer. */
  private static final Set<String> REFUSED =
      Set.of("pprint", "random", "striptags", "urlize", "wordwrap", "xmlattr");

  private static final Set<String> NAMES =
      Set.of(
          "abs",
          "attr",
          "batch",
          "capitalize",
          "center",
          "count",
          "d",
          "default",
          "dictsort",
          "e",
          "escape",
          "filesizeformat",
          "first",
          "float",
          "forceescape",
          "format",
          "groupby",
          "indent",
          "int",
          "items",
          "join",
          "last",
          "length",
          "list",
          "lower",
          "map",
          "max",
          "min",
          "reject",
          "rejectattr",
          "replace",
          "reverse",
          "round",
          "safe",
          "select",
          "selectattr",
          "slice",
          "sort",
          "string",
          "sum",
          "title",
          "tojson",
          "trim",
          "truncate",
          "unique",
          "upper",
          "urlencode",
          "wordcount");

  private static final Pattern WORD = Pattern.compile("[\\p{L}\\p{N}_]+");
  private static final Pattern TITLE_BREAK =
      Pattern.compile("[-\\s({\\[<]+", Pattern.UNICODE_CHARACTER_CLASS);

  private Filters() {}

  static boolean exists(String name) {
    return NAMES.contains(name) || REFUSED.contains(name);
  }

  static Object apply(String name, Object value, Arguments arguments) {
    return switch (name) {
      case "abs" -> abs(value);
      case "attr" -> Members.attributeOnly(value, arguments.bind(name, "name").text("name"));
      case "batch" -> batch(value, arguments.bind(name, "linecount", "fill_with"));
      case "capitalize" -> kept(value, StringMethods.capitalize(Representation.str(value)));
      case "center" ->
          kept(
              value,
              method(
                  Representation.str(value),
                  "center",
                  Arguments.of(
                      BigInteger.valueOf(arguments.bind(name, "width").integer("width", 80)))));
      case "count", "length" -> BigInteger.valueOf(Values.length(value));
      case "d", "default" -> orDefault(value, arguments.bind(name, "default_value", "boolean"));
      case "dictsort" -> dictSort(value, arguments.bind(name, "case_sensitive", "by", "reverse"));
      case "e", "escape" -> Markup.escape(value);
      case "filesizeformat" -> fileSize(value, arguments.bind(name, "binary"));
      case "first" -> first(value);
      case "float" -> real(value, arguments.bind(name, "default").or("default", 0.0));
      case "forceescape" -> Markup.escape(Representation.str(value));
      case "format" -> format(value, arguments);
      case "groupby" ->
          groupBy(value, arguments.bind(name, "attribute", "default", "case_sensitive"));
      case "indent" -> indent(value, arguments.bind(name, "width", "first", "blank"));
      case "int" -> integer(value, arguments.bind(name, "default", "base"));
      case "items" -> items(value);
      case "join" -> join(value, arguments.bind(name, "d", "attribute"));
      case "last" -> last(value);
      case "list" -> Values.list(value);
      case "lower" -> kept(value, Representation.str(value).toLowerCase(Locale.ROOT));
      case "map" -> map(value, arguments);
      case "max", "min" ->
          extreme(name, value, arguments.bind(name, "case_sensitive", "attribute"));
      case "reject" -> select(value, arguments, false, false);
      case "rejectattr" -> select(value, arguments, true, false);
      case "select" -> select(value, arguments, false, true);
      case "selectattr" -> select(value, arguments, true, true);
      case "replace" -> replace(value, arguments.bind(name, "old", "new", "count"));
      case "reverse" -> reverse(value);
      case "round" -> round(value, arguments.bind(name, "precision", "method"));
      case "safe" -> new Markup(Representation.str(value));
      case "slice" -> slice(value, arguments.bind(name, "slices", "fill_with"));
      case "sort" -> sort(value, arguments.bind(name, "reverse", "case_sensitive", "attribute"));
      case "string" -> value instanceof Markup ? value : Budget.made(Representation.str(value));
      case "sum" -> sum(value, arguments.bind(name, "attribute", "start"));
      case "title" -> kept(value, title(Representation.str(value)));
      case "tojson" ->
          toJson(value, arguments.bind(name, "ensure_ascii", "indent", "separators", "sort_keys"));
      case "trim" ->
          kept(
              value,
              method(
                  Representation.str(value),
                  "strip",
                  Arguments.of(arguments.bind(name, "chars").or("chars", None.NONE))));
      case "truncate" ->
          truncate(value, arguments.bind(name, "length", "killwords", "end", "leeway"));
      case "unique" -> unique(value, arguments.bind(name, "case_sensitive", "attribute"));
      case "upper" -> kept(value, Representation.str(value).toUpperCase(Locale.ROOT));
      case "urlencode" -> urlEncode(value);
      case "wordcount" ->
          BigInteger.valueOf(WORD.matcher(Representation.str(value)).results().count());
      default ->
          throw new TemplateFailure(
              REFUSED.contains(name)
                  ? "filter '" + name + "' is not supported in chat templates"
                  : "No filter named '" + name + "'.");
    };
  }

  /** The text, which stays markup if the filter's input was. */
  private static Object kept(Object input, Object text) {
    String made = Budget.made(Values.text(text));
    return input instanceof Markup ? new Markup(made) : made;
  }

  private static Object method(String text, String name, Arguments arguments) {
    Callable method = StringMethods.find(text, name);
    if (method == null) {
      throw new IllegalArgumentException(name);
    }
    return method.call(arguments);
  }

  // Numbers

  private static Object abs(Object value) {
    return switch (value) {
      case Double number -> Math.abs(number);
      case BigInteger integer -> integer.abs();
      case Boolean flag -> Values.integer(flag);
      case Undefined undefined -> throw undefined.failure();
      default ->
          throw new TemplateFailure("bad operand type for abs(): '" + Values.type(value) + "'");
    };
  }

  private static Object integer(Object value, Arguments.Bound bound) {
    Object otherwise = bound.or("default", BigInteger.ZERO);
    if (Values.isInteger(value)) {
      return Values.integer(value);
    }
    if (Values.isText(value)) {
      BigInteger parsed = parseInteger(Values.text(value), bound.integer("base", 10));
      if (parsed != null) {
        return parsed;
      }
    }
    Object number = real(value, None.NONE);
    if (!(number instanceof Double d) || Double.isNaN(d) || Double.isInfinite(d)) {
      return otherwise;
    }
    return new BigDecimal(d).toBigInteger();
  }

  /** What Python's {@code int(text, base)} gives, or null where that fails. */
  private static @Nullable BigInteger parseInteger(String text, int base) {
    String digits = PythonText.strip(text).toLowerCase(Locale.ROOT);
    boolean negative = digits.startsWith("-");
    if (negative || digits.startsWith("+")) {
      digits = digits.substring(1);
    }
    int radix = base;
    for (Map.Entry<String, Integer> prefix : Map.of("0x", 16, "0o", 8, "0b", 2).entrySet()) {
      if (digits.startsWith(prefix.getKey()) && (base == 0 || base == prefix.getValue())) {
        radix = prefix.getValue();
        digits = digits.substring(2);
        digits = digits.startsWith("_") ? digits.substring(1) : digits;
      }
    }
    radix = radix == 0 ? 10 : radix;
    boolean wellFormed =
        digits.length() <= 4300
            && !digits.isEmpty()
            && digits.charAt(0) != '_'
            && !digits.endsWith("_")
            && !digits.contains("__")
            && digits.charAt(0) != '-'
            && digits.charAt(0) != '+';
    if (!wellFormed || radix < 2 || radix > 36) {
      return null;
    }
    try {
      BigInteger parsed = new BigInteger(digits.replace("_", ""), radix);
      return negative ? parsed.negate() : parsed;
    } catch (NumberFormatException e) {
      return null;
    }
  }

  private static Object real(Object value, Object otherwise) {
    if (Values.isNumber(value)) {
      return Values.number(value);
    }
    if (value instanceof Undefined undefined) {
      throw undefined.failure();
    }
    if (!Values.isText(value)) {
      return otherwise;
    }
    String text = PythonText.strip(Values.text(value)).toLowerCase(Locale.ROOT);
    switch (text) {
      case "inf", "+inf", "infinity", "+infinity" -> {
        return Double.POSITIVE_INFINITY;
      }
      case "-inf", "-infinity" -> {
        return Double.NEGATIVE_INFINITY;
      }
      case "nan", "+nan", "-nan" -> {
        return Double.NaN;
      }
      default -> {}
    }
    if (!text.matches("[-+]?(\\d+(_\\d+)*\\.?(\\d+(_\\d+)*)?|\\.\\d+(_\\d+)*)(e[-+]?\\d+)?")) {
      return otherwise;
    }
    return Double.valueOf(text.replace("_", ""));
  }

  private static Object round(Object value, Arguments.Bound bound) {
    int precision = bound.integer("precision", 0);
    String method = bound.text("method", "common");
    if (!Set.of("common", "ceil", "floor").contains(method)) {
      throw new TemplateFailure("method must be common, ceil or floor");
    }
    if (Math.abs(precision) > 400) {
      throw new TemplateFailure("round to " + precision + " digits; at most 400");
    }
    if (!Values.isNumber(value)) {
      throw value instanceof Undefined undefined
          ? undefined.failure()
          : new TemplateFailure("type " + Values.type(value) + " doesn't define __round__ method");
    }
    if (!method.equals("common")) {
      Object scale = Values.binary("**", BigInteger.TEN, BigInteger.valueOf(precision));
      Object scaled = Values.binary("*", value, scale);
      BigDecimal exact =
          scaled instanceof Double d ? new BigDecimal(d) : new BigDecimal(Values.integer(scaled));
      RoundingMode mode = method.equals("ceil") ? RoundingMode.CEILING : RoundingMode.FLOOR;
      return Values.binary("/", exact.setScale(0, mode).toBigInteger(), scale);
    }
    if (value instanceof Double number) {
      return Double.isNaN(number) || Double.isInfinite(number)
          ? number
          : withSign(
              number,
              new BigDecimal(number).setScale(precision, RoundingMode.HALF_EVEN).doubleValue());
    }
    return new BigDecimal(Values.integer(value))
        .setScale(precision, RoundingMode.HALF_EVEN)
        .setScale(0, RoundingMode.UNNECESSARY)
        .toBigInteger();
  }

  private static double withSign(double original, double rounded) {
    return rounded == 0 ? Math.copySign(0.0, original) : rounded;
  }

  private static Object sum(Object value, Arguments.Bound bound) {
    Function<Object, Object> attribute = attribute(bound.orNull("attribute"), null);
    Object sum = bound.or("start", BigInteger.ZERO);
    if (Values.isText(sum)) {
      throw new TemplateFailure("sum() can't sum strings [use ''.join(seq) instead]");
    }
    Iterator<Object> items = Values.iterate(value);
    while (items.hasNext()) {
      Budget.steps(1);
      sum = Values.binary("+", sum, attribute.apply(items.next()));
    }
    return sum;
  }

  private static Object fileSize(Object value, Arguments.Bound bound) {
    Object number = real(value, None.NONE);
    if (!(number instanceof Double bytes)) {
      throw new TemplateFailure("filesizeformat needs a number");
    }
    boolean binary = bound.flag("binary", false);
    int base = binary ? 1024 : 1000;
    if (bytes == 1) {
      return "1 Byte";
    }
    if (bytes < base) {
      return new BigDecimal(bytes).toBigInteger() + " Bytes";
    }
    String letters = binary ? "KMGTPEZY" : "kMGTPEZY";
    double unit = base;
    for (int i = 0; ; i++) {
      unit *= base;
      if (bytes < unit || i == letters.length() - 1) {
        return StringFormat.percent("%.1f ", Tuple.of(base * bytes / unit))
            + letters.charAt(i)
            + (binary ? "iB" : "B");
      }
    }
  }

  // Text

  private static String title(String text) {
    StringBuilder out = new StringBuilder();
    Matcher matcher = TITLE_BREAK.matcher(text);
    int start = 0;
    while (matcher.find()) {
      titleWord(text.substring(start, matcher.start()), out);
      titleWord(matcher.group(), out);
      start = matcher.end();
    }
    titleWord(text.substring(start), out);
    return out.toString();
  }

  private static void titleWord(String word, StringBuilder out) {
    if (!word.isEmpty()) {
      int first = word.offsetByCodePoints(0, 1);
      out.append(word.substring(0, first).toUpperCase(Locale.ROOT))
          .append(word.substring(first).toLowerCase(Locale.ROOT));
    }
  }

  private static Object replace(Object value, Arguments.Bound bound) {
    String old = Representation.str(bound.required("old"));
    Object replacement = bound.required("new");
    Object count = bound.orNull("count");
    int times = count == null ? -1 : Values.index(count);
    if (value instanceof Markup markup) {
      return new Markup(
          StringMethods.replace(markup.text(), old, Markup.escape(replacement).text(), times));
    }
    return StringMethods.replace(
        Representation.str(value), old, Representation.str(replacement), times);
  }

  private static Object format(Object value, Arguments arguments) {
    if (!arguments.positional().isEmpty() && !arguments.named().isEmpty()) {
      throw new TemplateFailure("can't handle positional and keyword arguments at the same time");
    }
    Object values =
        arguments.named().isEmpty()
            ? new Tuple(arguments.positional())
            : new java.util.LinkedHashMap<Object, Object>(arguments.named());
    return kept(value, StringFormat.percent(Representation.str(value), values));
  }

  private static Object indent(Object value, Arguments.Bound bound) {
    Object width = bound.or("width", BigInteger.valueOf(4));
    String indentation =
        Values.isText(width)
            ? Values.text(width)
            : StringMethods.padded("", " ", Math.max(0, Values.index(width)), 0);
    boolean blank = bound.flag("blank", false);
    List<String> lines = PythonText.lines(Values.text(value) + "\n", false);
    StringBuilder out = new StringBuilder();
    for (int i = 0; i < lines.size(); i++) {
      String line = lines.get(i);
      if (i > 0) {
        out.append('\n');
      }
      if (i == 0 ? bound.flag("first", false) : blank || !line.isEmpty()) {
        out.append(indentation);
      }
      out.append(line);
      Budget.growing(out);
    }
    return kept(value, out.toString());
  }

  private static Object truncate(Object value, Arguments.Bound bound) {
    int length = bound.integer("length", 255);
    String end = bound.text("end", "...");
    Object leeway = bound.orNull("leeway");
    int endLength = PythonText.length(end);
    if (length < endLength) {
      throw new TemplateFailure("expected length >= " + endLength + ", got " + length);
    }
    long longest = (long) length + (leeway == null ? 5 : Values.index(leeway));
    if (Values.length(value) <= longest) {
      return value;
    }
    String text = Values.text(value);
    String cut = PythonText.between(text, 0, length - endLength);
    int space = cut.lastIndexOf(' ');
    if (!bound.flag("killwords", false) && space >= 0) {
      cut = cut.substring(0, space);
    }
    return kept(value, cut + end);
  }

  private static Object urlEncode(Object value) {
    if (Values.isText(value) || !Values.isIterable(value)) {
      return quoted(Representation.str(value), true);
    }
    Iterator<Object> pairs =
        Values.iterate(value instanceof Map<?, ?> map ? Members.items(Values.dict(map)) : value);
    List<String> parts = new ArrayList<>();
    while (pairs.hasNext()) {
      List<Object> pair = Values.list(pairs.next());
      if (pair.size() != 2) {
        throw new TemplateFailure("urlencode needs pairs, got " + pair.size() + " values");
      }
      parts.add(
          quoted(Representation.str(pair.getFirst()), false).replace("%20", "+")
              + "="
              + quoted(Representation.str(pair.getLast()), false).replace("%20", "+"));
    }
    return Budget.made(String.join("&", parts));
  }

  private static String quoted(String text, boolean slash) {
    StringBuilder out = new StringBuilder();
    HexFormat hex = HexFormat.of().withUpperCase();
    for (byte b : text.getBytes(StandardCharsets.UTF_8)) {
      char c = (char) (b & 0xff);
      boolean letterOrDigit = c < 0x80 && Character.isLetterOrDigit(c);
      if (letterOrDigit || "_.-~".indexOf(c) >= 0 || (slash && c == '/')) {
        out.append(c);
      } else {
        out.append('%').append(hex.toHexDigits(b));
      }
    }
    return Budget.made(out.toString());
  }

  private static Object toJson(Object value, Arguments.Bound bound) {
    Object indent = bound.orNull("indent");
    String indentation = null;
    if (indent != null) {
      indentation =
          Values.isText(indent)
              ? Values.text(indent)
              : StringMethods.padded("", " ", Math.max(0, Values.index(indent)), 0);
    }
    String itemSeparator = indent == null ? ", " : ",";
    String keySeparator = ": ";
    Object separators = bound.orNull("separators");
    if (separators != null) {
      List<Object> pair = Values.list(separators);
      if (pair.size() != 2) {
        throw new TemplateFailure("separators must be two strings, got " + pair.size());
      }
      itemSeparator = Values.text(pair.getFirst());
      keySeparator = Values.text(pair.getLast());
    }
    return Budget.made(
        new Representation.Json(
                indentation,
                itemSeparator,
                keySeparator,
                bound.flag("ensure_ascii", false),
                bound.flag("sort_keys", false))
            .write(value));
  }

  // Sequences

  private static Object orDefault(Object value, Arguments.Bound bound) {
    boolean absent =
        value instanceof Undefined || (bound.flag("boolean", false) && !Values.truth(value));
    return absent ? bound.or("default_value", "") : value;
  }

  private static Object first(Object value) {
    Iterator<Object> items = Values.iterate(value);
    return items.hasNext() ? items.next() : new Undefined("No first item, sequence was empty.");
  }

  private static Object last(Object value) {
    if (value instanceof Generator) {
      throw new TemplateFailure("'generator' object is not reversible");
    }
    List<Object> items = Values.list(value);
    return items.isEmpty() ? new Undefined("No last item, sequence was empty.") : items.getLast();
  }

  private static Object items(Object value) {
    if (value instanceof Undefined) {
      return List.of();
    }
    if (!(value instanceof Map<?, ?> map)) {
      throw new TemplateFailure("Can only get item pairs from a mapping.");
    }
    return new Generator(Members.items(Values.dict(map)).items().iterator());
  }

  private static Object reverse(Object value) {
    if (Values.isText(value)) {
      return Members.slice(value, null, null, BigInteger.ONE.negate());
    }
    if (!Values.isIterable(value)) {
      throw new TemplateFailure("argument must be iterable");
    }
    List<Object> items = Values.list(value);
    Collections.reverse(items);
    return value instanceof Generator ? items : new Generator(items.iterator());
  }

  private static Object join(Object value, Arguments.Bound bound) {
    String separator = Representation.str(bound.or("d", ""));
    Function<Object, Object> attribute = attribute(bound.orNull("attribute"), null);
    StringBuilder out = new StringBuilder();
    Iterator<Object> items = Values.iterate(value);
    boolean first = true;
    while (items.hasNext()) {
      if (!first) {
        out.append(separator);
      }
      out.append(Representation.str(attribute.apply(items.next())));
      Budget.growing(out);
      first = false;
    }
    return Budget.made(out.toString());
  }

  private static Object batch(Object value, Arguments.Bound bound) {
    int count = Values.index(bound.required("linecount"));
    Object fill = bound.orNull("fill_with");
    List<Object> batches = new ArrayList<>();
    List<Object> batch = new ArrayList<>();
    for (Object item : Values.list(value)) {
      if (batch.size() == count) {
        batches.add(batch);
        batch = new ArrayList<>();
      }
      batch.add(item);
    }
    if (!batch.isEmpty()) {
      if (fill != null && batch.size() < count) {
        Budget.steps(count);
        batch.addAll(Collections.nCopies(count - batch.size(), fill));
      }
      batches.add(batch);
    }
    return new Generator(batches.iterator());
  }

  private static Object slice(Object value, Arguments.Bound bound) {
    int slices = Values.index(bound.required("slices"));
    if (slices < 1) {
      throw new TemplateFailure("slice needs at least one part, got " + slices);
    }
    Budget.steps(slices);
    Object fill = bound.orNull("fill_with");
    List<Object> items = Values.list(value);
    int size = items.size() / slices;
    int larger = items.size() % slices;
    List<Object> result = new ArrayList<>();
    int start = 0;
    for (int i = 0; i < slices; i++) {
      int end = start + size + (i < larger ? 1 : 0);
      List<Object> part = new ArrayList<>(items.subList(start, end));
      if (fill != null && i >= larger) {
        part.add(fill);
      }
      result.add(part);
      start = end;
    }
    return new Generator(result.iterator());
  }

  private static Object map(Object value, Arguments arguments) {
    Function<Object, Object> function;
    if (arguments.positional().isEmpty() && arguments.named().containsKey("attribute")) {
      Arguments.Bound bound = arguments.bind("map", "attribute", "default");
      function = attribute(bound.orNull("attribute"), bound.orNull("default"));
    } else {
      if (arguments.positional().isEmpty()) {
        throw new TemplateFailure("map requires a filter argument");
      }
      String filter = Values.text(arguments.positional().getFirst());
      Arguments rest = arguments.after(1);
      function = item -> apply(filter, item, rest);
    }
    if (!Values.truth(value)) {
      return new Generator(Collections.emptyIterator());
    }
    Iterator<Object> items = Values.iterate(value);
    return new Generator(
        new Iterator<>() {
          @Override
          public boolean hasNext() {
            return items.hasNext();
          }

          @Override
          public Object next() {
            Budget.steps(1);
            return function.apply(items.next());
          }
        });
  }

  private static Object select(
      Object value, Arguments arguments, boolean byAttribute, boolean wanted) {
    List<Object> given = arguments.positional();
    int used = byAttribute ? 1 : 0;
    if (given.size() < used) {
      throw new TemplateFailure("Missing parameter for attribute name");
    }
    Function<Object, Object> attribute =
        byAttribute ? attribute(given.getFirst(), null) : Function.identity();
    Predicate<Object> test = Values::truth;
    if (given.size() > used) {
      String name = Values.text(given.get(used));
      Arguments rest = arguments.after(used + 1);
      test = item -> Predicates.test(name, item, rest);
    }
    if (!Values.truth(value)) {
      return new Generator(Collections.emptyIterator());
    }
    Predicate<Object> chosen = test;
    return new Generator(
        new Selection(Values.iterate(value), item -> chosen.test(attribute.apply(item)) == wanted));
  }

  /** The items of another iterator that pass a test, looked for only when asked. */
  static final class Selection implements Iterator<Object> {

    private final Iterator<Object> source;
    private final Predicate<Object> test;
    private @Nullable Object found;

    Selection(Iterator<Object> source, Predicate<Object> test) {
      this.source = source;
      this.test = test;
    }

    @Override
    public boolean hasNext() {
      while (found == null && source.hasNext()) {
        Budget.steps(1);
        Object item = source.next();
        if (test.test(item)) {
          found = item;
        }
      }
      return found != null;
    }

    @Override
    public Object next() {
      if (!hasNext() || found == null) {
        throw new NoSuchElementException();
      }
      Object item = found;
      found = null;
      return item;
    }
  }

  // Sorting

  private static Object sort(Object value, Arguments.Bound bound) {
    List<Object> items = Values.list(value);
    Object attribute = bound.orNull("attribute");
    boolean caseSensitive = bound.flag("case_sensitive", false);
    List<Function<Object, Object>> keys = new ArrayList<>();
    if (attribute != null && Values.isText(attribute)) {
      for (String part : Values.text(attribute).split(",", -1)) {
        keys.add(key(part, caseSensitive));
      }
    } else {
      keys.add(key(attribute, caseSensitive));
    }
    Function<Object, Object> key =
        item -> {
          List<Object> all = new ArrayList<>();
          keys.forEach(part -> all.add(part.apply(item)));
          return all;
        };
    return sorted(items, key, bound.flag("reverse", false));
  }

  private static List<Object> sorted(
      List<Object> items, Function<Object, Object> key, boolean reverse) {
    List<List<Object>> keyed = new ArrayList<>();
    for (Object item : items) {
      keyed.add(List.of(key.apply(item), item));
    }
    Comparator<List<Object>> order =
        (left, right) -> {
          Budget.steps(1);
          return Values.ORDER.compare(left.getFirst(), right.getFirst());
        };
    keyed.sort(reverse ? order.reversed() : order);
    List<Object> result = new ArrayList<>();
    keyed.forEach(pair -> result.add(pair.getLast()));
    return result;
  }

  private static Object dictSort(Object value, Arguments.Bound bound) {
    if (!(value instanceof Map<?, ?> map)) {
      throw value instanceof Undefined undefined
          ? undefined.failure()
          : new TemplateFailure("'" + Values.type(value) + "' object has no attribute 'items'");
    }
    String by = bound.text("by", "key");
    if (!by.equals("key") && !by.equals("value")) {
      throw new TemplateFailure("You can only sort by either \"key\" or \"value\"");
    }
    BigInteger position = by.equals("key") ? BigInteger.ZERO : BigInteger.ONE;
    return sorted(
        Members.items(Values.dict(map)).items(),
        key(position, bound.flag("case_sensitive", false)),
        bound.flag("reverse", false));
  }

  private static Object groupBy(Object value, Arguments.Bound bound) {
    Function<Object, Object> plain =
        attribute(bound.required("attribute"), bound.orNull("default"));
    boolean caseSensitive = bound.flag("case_sensitive", false);
    Function<Object, Object> key = item -> folded(plain.apply(item), caseSensitive);
    List<Object> groups = new ArrayList<>();
    List<Object> group = List.of();
    Object last = null;
    for (Object item : sorted(Values.list(value), key, false)) {
      Object current = key.apply(item);
      if (last == null || !Values.equal(last, current)) {
        group = new ArrayList<>();
        groups.add(new Tuple(List.of(plain.apply(item), group), List.of("grouper", "list")));
        last = current;
      }
      group.add(item);
    }
    return groups;
  }

  private static Object unique(Object value, Arguments.Bound bound) {
    Function<Object, Object> key =
        key(bound.orNull("attribute"), bound.flag("case_sensitive", false));
    List<Object> seen = new ArrayList<>();
    Set<String> seenTexts = new java.util.HashSet<>();
    return new Generator(
        new Selection(
            Values.iterate(value),
            item -> {
              Object current = key.apply(item);
              Values.checkKey(current);
              if (current instanceof String text) {
                return seenTexts.add(text);
              }
              if (seen.stream().anyMatch(other -> Values.equal(other, current))) {
                return false;
              }
              seen.add(current);
              return true;
            }));
  }

  private static Object extreme(String name, Object value, Arguments.Bound bound) {
    Function<Object, Object> key =
        key(bound.orNull("attribute"), bound.flag("case_sensitive", false));
    Iterator<Object> items = Values.iterate(value);
    if (!items.hasNext()) {
      return new Undefined("No aggregated item, sequence was empty.");
    }
    Object best = items.next();
    while (items.hasNext()) {
      Budget.steps(1);
      Object item = items.next();
      String better = name.equals("max") ? ">" : "<";
      if (Values.ordered(key.apply(item), better, key.apply(best))) {
        best = item;
      }
    }
    return best;
  }

  private static Function<Object, Object> key(@Nullable Object attribute, boolean caseSensitive) {
    Function<Object, Object> plain = attribute(attribute, null);
    return item -> folded(plain.apply(item), caseSensitive);
  }

  private static Object folded(Object value, boolean caseSensitive) {
    return Values.isText(value) && !caseSensitive
        ? Values.text(value).toLowerCase(Locale.ROOT)
        : value;
  }

  /** Looks up {@code a.0.b}; null gives the item itself. */
  private static Function<Object, Object> attribute(
      @Nullable Object attribute, @Nullable Object otherwise) {
    List<Object> parts = new ArrayList<>();
    if (attribute != null && Values.isText(attribute)) {
      for (String part : Values.text(attribute).split("\\.", -1)) {
        boolean number =
            !part.isEmpty()
                && part.length() < 10
                && part.chars().allMatch(c -> c >= '0' && c <= '9');
        parts.add(number ? new BigInteger(part) : part);
      }
    } else if (attribute != null) {
      parts.add(attribute);
    }
    return item -> {
      Object value = item;
      for (Object part : parts) {
        value = Members.item(value, part);
        if (otherwise != null && value instanceof Undefined) {
          value = otherwise;
        }
      }
      return value;
    };
  }
}
