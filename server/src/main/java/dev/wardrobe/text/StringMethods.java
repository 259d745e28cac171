package dev.wardrobe.text;

import java.math.BigInteger;
import java.util.ArrayList;
import java.util.Collections;
import java.util.Iterator;
import java.util.List;
import java.util.Locale;
import java.util.function.IntPredicate;
import org.jspecify.annotations.Nullable;

/** The methods of Python's str. Positions count code points. */
final class StringMethods {

  private StringMethods() {}

  /** The method {@code name} of {@code text}, or null if str has none of that name. */
  static @Nullable Callable find(String text, String name) {
    Budget.steps(text.length() / 64);
    return switch (name) {
      case "upper" -> nullary(name, () -> text.toUpperCase(Locale.ROOT));
      case "lower" -> nullary(name, () -> text.toLowerCase(Locale.ROOT));
      case "casefold" -> nullary(name, () -> casefold(text));
      case "capitalize" -> nullary(name, () -> capitalize(text));
      case "title" -> nullary(name, () -> title(text));
      case "swapcase" -> nullary(name, () -> swapcase(text));
      case "strip", "lstrip", "rstrip" -> arguments -> strip(text, name, arguments);
      case "split", "rsplit" -> arguments -> split(text, name, arguments);
      case "splitlines" ->
          arguments ->
              new ArrayList<Object>(
                  PythonText.lines(text, arguments.bind(name, "keepends").flag("keepends", false)));
      case "startswith", "endswith" -> arguments -> affix(text, name, arguments);
      case "removeprefix" ->
          arguments -> {
            String prefix = arguments.bind(name, "prefix").text("prefix");
            return text.startsWith(prefix) ? text.substring(prefix.length()) : text;
          };
      case "removesuffix" ->
          arguments -> {
            String suffix = arguments.bind(name, "suffix").text("suffix");
            return text.endsWith(suffix)
                ? text.substring(0, text.length() - suffix.length())
                : text;
          };
      case "replace" -> arguments -> replace(text, arguments.bind(name, "old", "new", "count"));
      case "find", "rfind" -> arguments -> BigInteger.valueOf(search(text, name, arguments));
      case "index", "rindex" ->
          arguments -> {
            int at = search(text, name, arguments);
            if (at < 0) {
              throw new TemplateFailure("substring not found");
            }
            return BigInteger.valueOf(at);
          };
      case "count" -> arguments -> count(text, arguments);
      case "join" -> arguments -> join(text, arguments.bind(name, "iterable").required("iterable"));
      case "partition", "rpartition" -> arguments -> partition(text, name, arguments);
      case "center", "ljust", "rjust" -> arguments -> justify(text, name, arguments);
      case "zfill" -> arguments -> zfill(text, arguments.bind(name, "width").integer("width", 0));
      case "expandtabs" ->
          arguments -> expandTabs(text, arguments.bind(name, "tabsize").integer("tabsize", 8));
      case "format" -> arguments -> StringFormat.braces(text, arguments);
      case "format_map" ->
          arguments -> {
            Object map = arguments.bind(name, "mapping").required("mapping");
            return StringFormat.braces(
                text, new Arguments(List.of(), Globals.names(map, "format_map() argument")));
          };
      case "isalpha" -> all(text, Character::isLetter);
      case "isdigit" -> all(text, StringMethods::isDigit);
      case "isdecimal" -> all(text, Character::isDigit);
      case "isnumeric" -> all(text, StringMethods::isNumeric);
      case "isalnum" -> all(text, c -> Character.isLetter(c) || isNumeric(c));
      case "isspace" -> all(text, PythonText::isSpace);
      case "isascii" -> nullary(name, () -> text.chars().allMatch(c -> c < 128));
      case "isprintable" ->
          nullary(name, () -> text.codePoints().allMatch(Representation::isPrintable));
      case "isidentifier" -> nullary(name, () -> isIdentifier(text));
      case "islower" -> nullary(name, () -> isCase(text, Character::isLowerCase));
      case "isupper" -> nullary(name, () -> isCase(text, Character::isUpperCase));
      case "istitle" ->
          nullary(
              name,
              () -> text.codePoints().anyMatch(StringMethods::cased) && text.equals(title(text)));
      case "encode", "maketrans", "translate" ->
          arguments -> {
            throw new TemplateFailure("str." + name + "() is not supported in chat templates");
          };
      default -> null;
    };
  }

  /** A method's work that needs no arguments. */
  @FunctionalInterface
  private interface Work {
    Object result();
  }

  private static Callable nullary(String name, Work work) {
    return arguments -> {
      arguments.bind(name);
      Object result = work.result();
      return result instanceof String text ? Budget.made(text) : result;
    };
  }

  private static Callable all(String text, IntPredicate predicate) {
    return arguments -> !text.isEmpty() && text.codePoints().allMatch(predicate);
  }

  private static boolean isDigit(int c) {
    return Character.isDigit(c)
        || (c == 0xb2 || c == 0xb3 || c == 0xb9 || c == 0x2070)
        || (c >= 0x2074 && c <= 0x2079)
        || (c >= 0x2080 && c <= 0x2089)
        || (c >= 0x2460 && c <= 0x2468);
  }

  private static boolean isNumeric(int c) {
    int type = Character.getType(c);
    return isDigit(c)
        || type == Character.LETTER_NUMBER
        || type == Character.OTHER_NUMBER
        || "一二三四五六七八九十百千万億兆零〇".indexOf(c) >= 0;
  }

  private static boolean isIdentifier(String text) {
    return !text.isEmpty()
        && (text.charAt(0) == '_' || Character.isUnicodeIdentifierStart(text.codePointAt(0)))
        && text.codePoints().allMatch(c -> c == '_' || Character.isUnicodeIdentifierPart(c));
  }

  private static boolean cased(int c) {
    return Character.isUpperCase(c) || Character.isLowerCase(c) || Character.isTitleCase(c);
  }

  private static boolean isCase(String text, IntPredicate wanted) {
    return text.codePoints().anyMatch(wanted)
        && text.codePoints().filter(StringMethods::cased).allMatch(wanted);
  }

  private static String casefold(String text) {
    StringBuilder out = new StringBuilder();
    text.codePoints()
        .forEach(
            c -> {
              String lower = Character.toString(c).toLowerCase(Locale.ROOT);
              String upper = lower.toUpperCase(Locale.ROOT);
              // What has no upper case of its own folds to the letters of its expansion.
              boolean expands = upper.length() > lower.length();
              out.append(expands ? upper.toLowerCase(Locale.ROOT) : lower);
            });
    return out.toString().replace('ς', 'σ');
  }

  static String capitalize(String text) {
    if (text.isEmpty()) {
      return text;
    }
    int first = text.codePointAt(0);
    return titleCase(first) + text.substring(Character.charCount(first)).toLowerCase(Locale.ROOT);
  }

  private static String titleCase(int c) {
    int title = Character.toTitleCase(c);
    if (title != c) {
      return Character.toString(title);
    }
    // Characters such as ß have no single title case; the first letter alone is capital.
    String upper = Character.toString(c).toUpperCase(Locale.ROOT);
    int first = upper.codePointAt(0);
    return Character.toString(first)
        + upper.substring(Character.charCount(first)).toLowerCase(Locale.ROOT);
  }

  private static String title(String text) {
    StringBuilder out = new StringBuilder();
    boolean inWord = false;
    for (int i = 0; i < text.length(); ) {
      int c = text.codePointAt(i);
      i += Character.charCount(c);
      out.append(inWord ? Character.toString(c).toLowerCase(Locale.ROOT) : titleCase(c));
      inWord = cased(c);
    }
    return out.toString();
  }

  private static String swapcase(String text) {
    StringBuilder out = new StringBuilder();
    text.codePoints()
        .forEach(
            c -> {
              String s = Character.toString(c);
              out.append(
                  Character.isUpperCase(c)
                      ? s.toLowerCase(Locale.ROOT)
                      : Character.isLowerCase(c) ? s.toUpperCase(Locale.ROOT) : s);
            });
    return out.toString();
  }

  private static Object strip(String text, String name, Arguments arguments) {
    Object characters = arguments.bind(name, "chars").orNull("chars");
    boolean left = !name.equals("rstrip");
    boolean right = !name.equals("lstrip");
    String result = text;
    if (characters == null) {
      result = left ? PythonText.lstrip(result) : result;
      return right ? PythonText.rstrip(result) : result;
    }
    if (!Values.isText(characters)) {
      throw new TemplateFailure(name + " arg must be None or str");
    }
    String set = Values.text(characters);
    result = left ? PythonText.lstrip(result, set) : result;
    return right ? PythonText.rstrip(result, set) : result;
  }

  private static Object split(String text, String name, Arguments arguments) {
    Arguments.Bound bound = arguments.bind(name, "sep", "maxsplit");
    Object separator = bound.orNull("sep");
    int limit = bound.integer("maxsplit", -1);
    long most = limit < 0 ? Long.MAX_VALUE : limit;
    if (separator != null && !Values.isText(separator)) {
      throw new TemplateFailure("must be str or None, not " + Values.type(separator));
    }
    if (separator != null && Values.text(separator).isEmpty()) {
      throw new TemplateFailure("empty separator");
    }
    boolean fromLeft = name.equals("split");
    List<Object> parts;
    if (separator == null) {
      parts = fromLeft ? words(text, most) : wordsFromRight(text, most);
    } else {
      String by = Values.text(separator);
      parts = fromLeft ? parts(text, by, most) : partsFromRight(text, by, most);
    }
    Budget.steps(parts.size());
    return parts;
  }

  private static List<Object> parts(String text, String separator, long most) {
    List<Object> parts = new ArrayList<>();
    int start = 0;
    int at = text.indexOf(separator);
    while (at >= 0 && parts.size() < most) {
      parts.add(text.substring(start, at));
      start = at + separator.length();
      at = text.indexOf(separator, start);
    }
    parts.add(text.substring(start));
    return parts;
  }

  private static List<Object> partsFromRight(String text, String separator, long most) {
    List<Object> parts = new ArrayList<>();
    int end = text.length();
    int at = text.lastIndexOf(separator);
    while (at >= 0 && parts.size() < most) {
      parts.add(text.substring(at + separator.length(), end));
      end = at;
      at = end < separator.length() ? -1 : text.lastIndexOf(separator, end - separator.length());
    }
    parts.add(text.substring(0, end));
    Collections.reverse(parts);
    return parts;
  }

  private static List<Object> words(String text, long most) {
    List<Object> words = new ArrayList<>();
    String rest = PythonText.lstrip(text);
    int i = 0;
    while (i < rest.length()) {
      if (words.size() >= most) {
        words.add(PythonText.rstrip(rest.substring(i)));
        break;
      }
      int end = i;
      while (end < rest.length() && !PythonText.isSpace(rest.charAt(end))) {
        end++;
      }
      words.add(rest.substring(i, end));
      i = end;
      while (i < rest.length() && PythonText.isSpace(rest.charAt(i))) {
        i++;
      }
    }
    return words;
  }

  private static List<Object> wordsFromRight(String text, long most) {
    List<Object> words = new ArrayList<>();
    int end = PythonText.rstrip(text).length();
    while (end > 0) {
      if (words.size() >= most) {
        words.add(PythonText.lstrip(text.substring(0, end)));
        break;
      }
      int start = end;
      while (start > 0 && !PythonText.isSpace(text.charAt(start - 1))) {
        start--;
      }
      words.add(text.substring(start, end));
      end = PythonText.rstrip(text.substring(0, start)).length();
    }
    Collections.reverse(words);
    return words;
  }

  private static Object affix(String text, String name, Arguments arguments) {
    Arguments.Bound bound = arguments.bind(name, "prefix", "start", "end");
    Object wanted = bound.required("prefix");
    String part = bounded(text, bound);
    List<Object> choices = wanted instanceof Tuple tuple ? tuple.items() : List.of(wanted);
    for (Object choice : choices) {
      if (!Values.isText(choice)) {
        throw new TemplateFailure(
            name + " first arg must be str or a tuple of str, not " + Values.type(choice));
      }
      String affix = Values.text(choice);
      if (name.equals("startswith") ? part.startsWith(affix) : part.endsWith(affix)) {
        return true;
      }
    }
    return false;
  }

  /** The part of the text between the arguments {@code start} and {@code end}. */
  private static String bounded(String text, Arguments.Bound bound) {
    if (!bound.has("start")) {
      return text;
    }
    return Values.text(Members.slice(text, bound.orNull("start"), bound.orNull("end"), null));
  }

  private static Object replace(String text, Arguments.Bound bound) {
    String old = bound.text("old");
    String replacement = bound.text("new");
    int count = bound.integer("count", -1);
    return replace(text, old, replacement, count);
  }

  /** Replaces the first {@code count} occurrences, or all if it is negative. */
  static String replace(String text, String old, String replacement, int count) {
    StringBuilder out = new StringBuilder();
    int done = 0;
    int start = 0;
    int at = text.indexOf(old);
    while (at >= 0 && (count < 0 || done < count)) {
      out.append(text, start, at).append(replacement);
      done++;
      Budget.growing(out);
      if (old.isEmpty()) {
        // An empty string is found before each character and at the end.
        if (at == text.length()) {
          start = at;
          break;
        }
        start = at;
        at = text.offsetByCodePoints(at, 1);
        out.append(text, start, at);
        start = at;
      } else {
        start = at + old.length();
        at = text.indexOf(old, start);
      }
    }
    return Budget.made(out.append(text, start, text.length()).toString());
  }

  private static int search(String text, String name, Arguments arguments) {
    Arguments.Bound bound = arguments.bind(name, "sub", "start", "end");
    String wanted = bound.text("sub");
    String part = bounded(text, bound);
    int at = name.startsWith("r") ? part.lastIndexOf(wanted) : part.indexOf(wanted);
    if (at < 0) {
      return -1;
    }
    int skipped = 0;
    Object start = bound.orNull("start");
    if (start != null) {
      int length = PythonText.length(text);
      int from = Values.index(start);
      if (from > length) {
        return -1;
      }
      skipped = from < 0 ? Math.max(0, from + length) : from;
    }
    return skipped + PythonText.toCharacters(part, at);
  }

  private static Object count(String text, Arguments arguments) {
    Arguments.Bound bound = arguments.bind("count", "sub", "start", "end");
    String wanted = bound.text("sub");
    String part = bounded(text, bound);
    if (wanted.isEmpty()) {
      return BigInteger.valueOf(PythonText.length(part) + 1L);
    }
    long count = 0;
    for (int at = part.indexOf(wanted); at >= 0; at = part.indexOf(wanted, at + wanted.length())) {
      count++;
    }
    return BigInteger.valueOf(count);
  }

  static String join(String separator, Object items) {
    StringBuilder out = new StringBuilder();
    Iterator<Object> iterator = Values.iterate(items);
    for (int i = 0; iterator.hasNext(); i++) {
      Object item = iterator.next();
      if (!Values.isText(item)) {
        throw new TemplateFailure(
            "sequence item " + i + ": expected str instance, " + Values.type(item) + " found");
      }
      if (i > 0) {
        out.append(separator);
      }
      out.append(Values.text(item));
      Budget.growing(out);
    }
    return Budget.made(out.toString());
  }

  private static Object partition(String text, String name, Arguments arguments) {
    String separator = arguments.bind(name, "sep").text("sep");
    if (separator.isEmpty()) {
      throw new TemplateFailure("empty separator");
    }
    boolean last = name.equals("rpartition");
    int at = last ? text.lastIndexOf(separator) : text.indexOf(separator);
    if (at < 0) {
      return last ? Tuple.of("", "", text) : Tuple.of(text, "", "");
    }
    return Tuple.of(text.substring(0, at), separator, text.substring(at + separator.length()));
  }

  private static Object justify(String text, String name, Arguments arguments) {
    Arguments.Bound bound = arguments.bind(name, "width", "fillchar");
    bound.required("width");
    String fill = bound.text("fillchar", " ");
    if (PythonText.length(fill) != 1) {
      throw new TemplateFailure("The fill character must be exactly one character long");
    }
    int width = bound.integer("width", 0);
    int padding = Math.max(0, width - PythonText.length(text));
    int left =
        switch (name) {
          case "ljust" -> 0;
          case "rjust" -> padding;
          default -> padding / 2 + (padding & width & 1);
        };
    return padded(text, fill, left, padding - left);
  }

  static String padded(String text, String fill, int left, int right) {
    Budget.text((long) text.length() + (long) fill.length() * left + (long) fill.length() * right);
    return fill.repeat(left) + text + fill.repeat(right);
  }

  private static Object zfill(String text, int width) {
    int padding = Math.max(0, width - PythonText.length(text));
    boolean sign = text.startsWith("+") || text.startsWith("-");
    String zeros = padded("", "0", padding, 0);
    return sign ? text.charAt(0) + zeros + text.substring(1) : zeros + text;
  }

  private static Object expandTabs(String text, int size) {
    StringBuilder out = new StringBuilder();
    int column = 0;
    for (int i = 0; i < text.length(); ) {
      int c = text.codePointAt(i);
      i += Character.charCount(c);
      if (c == '\t') {
        int spaces = size <= 0 ? 0 : size - column % size;
        Budget.text(spaces);
        out.repeat(' ', spaces);
        column += spaces;
        continue;
      }
      out.appendCodePoint(c);
      column = c == '\n' || c == '\r' ? 0 : column + 1;
    }
    return Budget.made(out.toString());
  }
}
