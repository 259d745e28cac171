package dev.wardrobe.text;

import java.math.BigDecimal;
import java.math.BigInteger;
import java.math.RoundingMode;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.jspecify.annotations.Nullable;

/** Python's two ways of putting values into text: {@code '%s' % value} and {@code '{}'.format}. */
final class StringFormat {

  private static final int MAX_WIDTH = 1 << 20;

  private static final Pattern CONVERSION =
      Pattern.compile(
          "%(?:\\(([^)]*)\\))?([-+ #0]*)(\\*|\\d*)(?:\\.(\\*|\\d*))?[hlL]?(.?)", Pattern.DOTALL);

  private static final Pattern SPECIFICATION =
      Pattern.compile(
          "(?:(.)?([<>=^]))?([-+ ])?(z)?(#)?(0)?(\\d+)?([,_])?(?:\\.(\\d+))?([a-zA-Z%])?",
          Pattern.DOTALL);

  private StringFormat() {}

  // printf style

  static String percent(String format, Object values) {
    StringBuilder out = new StringBuilder();
    List<Object> arguments = values instanceof Tuple tuple ? tuple.items() : List.of(values);
    int used = 0;
    boolean byName = false;
    Matcher matcher = CONVERSION.matcher(format);
    int start = 0;
    while (matcher.find(start)) {
      out.append(format, start, matcher.start());
      start = matcher.end();
      Budget.growing(out);
      String type = matcher.group(5);
      if (type.equals("%")) {
        out.append('%');
        continue;
      }
      if (type.isEmpty()) {
        throw new TemplateFailure("incomplete format");
      }
      String name = matcher.group(1);
      int width = 0;
      int precision = -1;
      String flags = matcher.group(2);
      if (matcher.group(3).equals("*")) {
        width = Values.index(argument(arguments, used++));
        if (width < 0) {
          flags += "-";
          width = -width;
        }
      } else if (!matcher.group(3).isEmpty()) {
        width = size(matcher.group(3));
      }
      if (matcher.group(4) != null) {
        precision =
            matcher.group(4).equals("*")
                ? Values.index(argument(arguments, used++))
                : matcher.group(4).isEmpty() ? 0 : size(matcher.group(4));
      }
      Object value;
      if (name == null) {
        value = argument(arguments, used++);
      } else {
        byName = true;
        if (!(values instanceof Map<?, ?> map)) {
          throw new TemplateFailure("format requires a mapping");
        }
        value = Values.lookUp(map, name);
        if (value == null) {
          throw new TemplateFailure("KeyError: '" + name + "'");
        }
      }
      convert(out, type.charAt(0), flags, width, precision, value);
    }
    out.append(format, start, format.length());
    // Python forgives unused values that could be looked up by name.
    boolean forgiven =
        byName
            || values instanceof List
            || values instanceof Map
            || values instanceof Range
            || values instanceof Undefined;
    if (!forgiven && used < arguments.size()) {
      throw new TemplateFailure("not all arguments converted during string formatting");
    }
    return Budget.made(out.toString());
  }

  private static Object argument(List<Object> arguments, int index) {
    if (index >= arguments.size()) {
      throw new TemplateFailure("not enough arguments for format string");
    }
    return arguments.get(index);
  }

  private static int size(String digits) {
    if (digits.length() > 7 || Integer.parseInt(digits) > MAX_WIDTH) {
      throw new TemplateFailure("a width or precision of " + digits + "; at most " + MAX_WIDTH);
    }
    return Integer.parseInt(digits);
  }

  private static void convert(
      StringBuilder out, char type, String flags, int width, int precision, Object value) {
    String text =
        switch (type) {
          case 's', 'r', 'a' -> {
            String shown = type == 's' ? Representation.str(value) : Representation.repr(value);
            yield precision < 0 ? shown : cut(shown, precision);
          }
          case 'c' -> character(value);
          case 'd', 'i', 'u' -> integral(value, 10, precision, flags, "");
          case 'o' -> integral(value, 8, precision, flags, "0o");
          case 'x' -> integral(value, 16, precision, flags, "0x");
          case 'X' -> integral(value, 16, precision, flags, "0X").toUpperCase(Locale.ROOT);
          case 'e', 'E', 'f', 'F', 'g', 'G' ->
              signed(
                  flags,
                  real(
                      Values.number(value),
                      type,
                      precision < 0 ? 6 : precision,
                      flags.contains("#")));
          default ->
              throw new TemplateFailure(
                  "unsupported format character '"
                      + type
                      + "' (0x"
                      + Integer.toHexString(type)
                      + ")");
        };
    int padding = Math.max(0, Math.min(width, MAX_WIDTH) - PythonText.length(text));
    if (flags.contains("-")) {
      out.append(text).repeat(' ', padding);
    } else if (flags.contains("0") && "diuoxXeEfFgG".indexOf(type) >= 0) {
      int sign = prefixLength(text, type);
      out.append(text, 0, sign).repeat('0', padding).append(text, sign, text.length());
    } else {
      out.repeat(' ', padding).append(text);
    }
  }

  private static int prefixLength(String text, char type) {
    int at = !text.isEmpty() && "+- ".indexOf(text.charAt(0)) >= 0 ? 1 : 0;
    boolean radix =
        "oxX".indexOf(type) >= 0
            && text.length() > at + 1
            && "oxX".indexOf(text.charAt(at + 1)) >= 0;
    return radix ? at + 2 : at;
  }

  private static String cut(String text, int length) {
    return PythonText.between(text, 0, Math.min(length, PythonText.length(text)));
  }

  private static String character(Object value) {
    if (Values.isText(value) && PythonText.length(Values.text(value)) == 1) {
      return Values.text(value);
    }
    int c = Values.isInteger(value) ? Values.index(value) : -1;
    if (!Character.isValidCodePoint(c)) {
      throw new TemplateFailure("format c requires int or char");
    }
    return Character.toString(c);
  }

  private static String integral(
      Object value, int radix, int precision, String flags, String prefix) {
    BigInteger integer;
    if (value instanceof Double number && radix == 10) {
      if (Double.isNaN(number) || Double.isInfinite(number)) {
        throw new TemplateFailure(
            "cannot convert float " + Representation.real(number) + " to integer");
      }
      integer = new BigDecimal(number).toBigInteger();
    } else if (Values.isInteger(value)) {
      integer = Values.integer(value);
    } else {
      throw new TemplateFailure(
          "%"
              + (radix == 10 ? "d" : radix == 16 ? "x" : "o")
              + " format: a real number is required, not "
              + Values.type(value));
    }
    String digits = integer.abs().toString(radix);
    if (digits.length() < precision) {
      digits = "0".repeat(Math.min(precision, MAX_WIDTH) - digits.length()) + digits;
    }
    String text = (integer.signum() < 0 ? "-" : "") + (flags.contains("#") ? prefix : "") + digits;
    return signed(flags, text);
  }

  private static String signed(String flags, String text) {
    if (text.startsWith("-")) {
      return text;
    }
    return flags.contains("+") ? "+" + text : flags.contains(" ") ? " " + text : text;
  }

  /** A float in one of C's formats. */
  private static String real(double number, char type, int precision, boolean alternate) {
    boolean upper = Character.isUpperCase(type);
    String text;
    if (Double.isNaN(number) || Double.isInfinite(number)) {
      text = Representation.real(number);
    } else {
      text =
          switch (Character.toLowerCase(type)) {
            case 'f' -> fixed(number, precision);
            case 'e' -> scientific(number, precision);
            default -> general(number, Math.max(1, precision), alternate);
          };
      if (number == 0 && 1 / number < 0) {
        text = "-" + text;
      }
    }
    return upper ? text.toUpperCase(Locale.ROOT) : text;
  }

  private static String fixed(double number, int precision) {
    return new BigDecimal(number).setScale(precision, RoundingMode.HALF_EVEN).toPlainString();
  }

  private static String scientific(double number, int precision) {
    if (number == 0) {
      return "0" + (precision > 0 ? "." + "0".repeat(precision) : "") + "e+00";
    }
    BigDecimal exact = new BigDecimal(number);
    BigDecimal rounded =
        exact.round(new java.math.MathContext(precision + 1, RoundingMode.HALF_EVEN));
    String digits = rounded.unscaledValue().abs().toString();
    int exponent = digits.length() - 1 - rounded.scale();
    if (digits.length() > precision + 1) {
      digits = digits.substring(0, precision + 1);
    }
    digits += "0".repeat(precision + 1 - digits.length());
    return (number < 0 ? "-" : "")
        + digits.charAt(0)
        + (precision > 0 ? "." + digits.substring(1) : "")
        + (exponent < 0 ? "e-" : "e+")
        + (Math.abs(exponent) < 10 ? "0" : "")
        + Math.abs(exponent);
  }

  private static String general(double number, int precision, boolean alternate) {
    String scientific = scientific(number, precision - 1);
    int exponent = Integer.parseInt(scientific.substring(scientific.indexOf('e') + 1));
    String text;
    String tail = "";
    if (exponent < -4 || exponent >= precision) {
      text = scientific.substring(0, scientific.indexOf('e'));
      tail = scientific.substring(scientific.indexOf('e'));
    } else {
      text = fixed(number, precision - 1 - exponent);
    }
    if (!alternate && text.contains(".")) {
      text = PythonText.rstrip(PythonText.rstrip(text, "0"), ".");
    }
    return text + tail;
  }

  // Braces

  static String braces(String format, Arguments arguments) {
    return Budget.made(new Braces(arguments).format(format, 0));
  }

  /** One call of {@code str.format}; fields without a name take the next argument. */
  private static final class Braces {

    private final Arguments arguments;
    private int next;

    Braces(Arguments arguments) {
      this.arguments = arguments;
    }

    String format(String format, int depth) {
      if (depth > 1) {
        throw new TemplateFailure("Max string recursion exceeded");
      }
      StringBuilder out = new StringBuilder();
      int i = 0;
      while (i < format.length()) {
        char c = format.charAt(i++);
        boolean doubled = i < format.length() && format.charAt(i) == c;
        if ((c == '{' || c == '}') && doubled) {
          out.append(c);
          i++;
        } else if (c == '}') {
          throw new TemplateFailure("Single '}' encountered in format string");
        } else if (c == '{') {
          int end = fieldEnd(format, i);
          out.append(field(format.substring(i, end), depth));
          i = end + 1;
        } else {
          out.append(c);
        }
        Budget.growing(out);
      }
      return out.toString();
    }

    private static int fieldEnd(String format, int start) {
      int open = 1;
      for (int i = start; i < format.length(); i++) {
        char c = format.charAt(i);
        open += c == '{' ? 1 : c == '}' ? -1 : 0;
        if (open == 0) {
          return i;
        }
      }
      throw new TemplateFailure("expected '}' before end of string");
    }

    private String field(String field, int depth) {
      int nameEnd = 0;
      boolean bracket = false;
      while (nameEnd < field.length()) {
        char c = field.charAt(nameEnd);
        if (!bracket && (c == ':' || c == '!')) {
          break;
        }
        bracket = c == '[' || (bracket && c != ']');
        nameEnd++;
      }
      Object value = value(field.substring(0, nameEnd));
      String rest = field.substring(nameEnd);
      if (rest.startsWith("!")) {
        if (rest.length() < 2 || (rest.length() > 2 && rest.charAt(2) != ':')) {
          throw new TemplateFailure("expected ':' after conversion specifier");
        }
        value =
            switch (rest.charAt(1)) {
              case 's' -> Representation.str(value);
              case 'r', 'a' -> Representation.repr(value);
              default ->
                  throw new TemplateFailure(
                      "Unknown conversion specifier '" + rest.charAt(1) + "'");
            };
        rest = rest.substring(2);
      }
      String specification = rest.isEmpty() ? "" : format(rest.substring(1), depth + 1);
      return formatted(value, specification);
    }

    private Object value(String name) {
      int end = 0;
      while (end < name.length() && name.charAt(end) != '.' && name.charAt(end) != '[') {
        end++;
      }
      String first = name.substring(0, end);
      Object value;
      if (first.isEmpty()) {
        value = positional(next++);
      } else if (first.chars().allMatch(c -> c >= '0' && c <= '9')) {
        value = positional(size(first));
      } else {
        value = arguments.named().get(first);
        if (value == null) {
          throw new TemplateFailure("KeyError: '" + first + "'");
        }
      }
      while (end < name.length()) {
        if (name.charAt(end) == '.') {
          int stop = end + 1;
          while (stop < name.length() && name.charAt(stop) != '.' && name.charAt(stop) != '[') {
            stop++;
          }
          value = Members.attribute(value, name.substring(end + 1, stop));
          end = stop;
        } else {
          int stop = name.indexOf(']', end);
          if (stop < 0) {
            throw new TemplateFailure("Missing ']' in format string");
          }
          String key = name.substring(end + 1, stop);
          boolean number = !key.isEmpty() && key.chars().allMatch(c -> c >= '0' && c <= '9');
          value = Members.item(value, number ? BigInteger.valueOf(size(key)) : key);
          end = stop + 1;
        }
      }
      return value;
    }

    private Object positional(int index) {
      if (index >= arguments.positional().size()) {
        throw new TemplateFailure(
            "Replacement index " + index + " out of range for positional args tuple");
      }
      return arguments.positional().get(index);
    }
  }

  private static String formatted(Object value, String specification) {
    if (specification.isEmpty()) {
      return Representation.str(value);
    }
    Matcher matcher = SPECIFICATION.matcher(specification);
    boolean number = Values.isNumber(value);
    if (!matcher.matches() || !(number || Values.isText(value))) {
      throw new TemplateFailure(
          "Invalid format specifier '"
              + specification
              + "' for object of type '"
              + Values.type(value)
              + "'");
    }
    boolean zero = matcher.group(6) != null;
    String fill = matcher.group(1) != null ? matcher.group(1) : zero ? "0" : " ";
    String align =
        matcher.group(2) != null ? matcher.group(2) : zero && number ? "=" : number ? ">" : "<";
    int width = matcher.group(7) == null ? 0 : size(matcher.group(7));
    int precision = matcher.group(9) == null ? -1 : size(matcher.group(9));
    String sign = matcher.group(3) == null ? "" : matcher.group(3);
    String flags = (sign.equals("-") ? "" : sign) + (matcher.group(5) == null ? "" : "#");
    String text =
        number
            ? number(value, matcher.group(10), precision, flags, matcher.group(8))
            : string(value, matcher.group(10), precision, flags + matcherText(matcher, 8));
    int padding = Math.max(0, width - PythonText.length(text));
    return switch (align) {
      case "<" -> StringMethods.padded(text, fill, 0, padding);
      case ">" -> StringMethods.padded(text, fill, padding, 0);
      case "^" -> StringMethods.padded(text, fill, padding / 2, padding - padding / 2);
      default -> {
        int at = !text.isEmpty() && "+- ".indexOf(text.charAt(0)) >= 0 ? 1 : 0;
        yield text.substring(0, at) + StringMethods.padded(text.substring(at), fill, padding, 0);
      }
    };
  }

  private static String matcherText(Matcher matcher, int group) {
    String text = matcher.group(group);
    return text == null ? "" : text;
  }

  private static String string(Object value, @Nullable String type, int precision, String refused) {
    if ((type != null && !type.equals("s")) || !refused.isEmpty()) {
      throw new TemplateFailure("Invalid format specifier for object of type 'str'");
    }
    String text = Values.text(value);
    return precision < 0 ? text : cut(text, precision);
  }

  private static String number(
      Object value, @Nullable String type, int precision, String flags, @Nullable String grouping) {
    char kind = type == null ? (value instanceof Double ? 0 : 'd') : type.charAt(0);
    String text =
        switch (kind) {
          case 'd', 'n', 'x', 'X', 'o', 'b', 'c' -> {
            if (value instanceof Double || precision >= 0) {
              throw new TemplateFailure(
                  "Unknown format code '"
                      + kind
                      + "' for object of type '"
                      + Values.type(value)
                      + "'");
            }
            yield switch (kind) {
              case 'x' -> integral(value, 16, -1, flags, "0x");
              case 'X' -> integral(value, 16, -1, flags, "0X").toUpperCase(Locale.ROOT);
              case 'o' -> integral(value, 8, -1, flags, "0o");
              case 'b' -> integral(value, 2, -1, flags, "0b");
              case 'c' -> character(value);
              default -> integral(value, 10, -1, flags.replace("#", ""), "");
            };
          }
          case 'e', 'E', 'f', 'F', 'g', 'G' ->
              signed(
                  flags,
                  real(
                      Values.number(value),
                      kind,
                      precision < 0 ? 6 : precision,
                      flags.contains("#")));
          case '%' ->
              signed(
                  flags,
                  real(Values.number(value) * 100, 'f', precision < 0 ? 6 : precision, false)
                      + "%");
          case 0 ->
              signed(
                  flags,
                  precision < 0
                      ? Representation.real(Values.number(value))
                      : shortest(Values.number(value), precision));
          default ->
              throw new TemplateFailure(
                  "Unknown format code '"
                      + kind
                      + "' for object of type '"
                      + Values.type(value)
                      + "'");
        };
    return grouping == null ? text : grouped(text, grouping);
  }

  /** A float with a precision but no type: as 'g', with at least one digit after the point. */
  private static String shortest(double number, int precision) {
    String text = real(number, 'g', precision, false);
    boolean whole = text.chars().allMatch(c -> (c >= '0' && c <= '9') || c == '-');
    return whole ? text + ".0" : text;
  }

  private static String grouped(String text, String separator) {
    int start = !text.isEmpty() && "+- ".indexOf(text.charAt(0)) >= 0 ? 1 : 0;
    int end = start;
    while (end < text.length() && text.charAt(end) >= '0' && text.charAt(end) <= '9') {
      end++;
    }
    StringBuilder out = new StringBuilder(text);
    for (int i = end - 3; i > start; i -= 3) {
      out.insert(i, separator);
    }
    return out.toString();
  }
}
