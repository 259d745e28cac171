package dev.wardrobe.text;

import java.math.BigDecimal;
import java.math.BigInteger;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/** How values look as text: Python's {@code str} and {@code repr}, and {@code json.dumps}. */
final class Representation {

  private static final int MAX_DEPTH = 500;

  private Representation() {}

  static String str(Object value) {
    return switch (value) {
      case String text -> text;
      case Markup markup -> markup.text();
      case Undefined undefined -> "";
      default -> repr(value);
    };
  }

  static String repr(Object value) {
    StringBuilder out = new StringBuilder();
    repr(value, out, 0);
    return out.toString();
  }

  private static void repr(Object value, StringBuilder out, int depth) {
    if (depth > MAX_DEPTH) {
      throw new TemplateFailure("a value is nested more than " + MAX_DEPTH + " deep");
    }
    Budget.growing(out);
    switch (value) {
      case None none -> out.append("None");
      case Boolean flag -> out.append(flag ? "True" : "False");
      case BigInteger integer -> out.append(integer);
      case Double number -> out.append(real(number));
      case String text -> quote(text, out);
      case Markup markup -> {
        out.append("Markup(");
        quote(markup.text(), out);
        out.append(')');
      }
      case List<?> list -> items(list, "[", "]", out, depth);
      case Tuple tuple ->
          items(tuple.items(), "(", tuple.items().size() == 1 ? ",)" : ")", out, depth);
      case Map<?, ?> map -> dict(map, out, depth);
      case DictView view -> items(view.items(), view.type() + "([", "])", out, depth);
      case Range range -> {
        out.append("range(").append(range.start()).append(", ").append(range.stop());
        if (!range.step().equals(BigInteger.ONE)) {
          out.append(", ").append(range.step());
        }
        out.append(')');
      }
      case Undefined undefined -> out.append("Undefined");
      case Namespace namespace -> {
        out.append("<Namespace ");
        dict(namespace.attributes(), out, depth);
        out.append('>');
      }
      case Macro macro -> {
        out.append("<Macro ");
        quote(macro.name(), out);
        out.append('>');
      }
      case Loop loop ->
          out.append("<LoopContext ")
              .append(loop.turn())
              .append('/')
              .append(loop.length())
              .append('>');
      default ->
          // Python would print an address, which is different every time.
          throw new TemplateFailure("a " + Values.type(value) + " cannot be printed");
    }
  }

  private static void items(
      List<?> items, String open, String close, StringBuilder out, int depth) {
    out.append(open);
    String separator = "";
    for (Object item : items) {
      out.append(separator);
      repr(item, out, depth + 1);
      separator = ", ";
    }
    out.append(close);
  }

  private static void dict(Map<?, ?> map, StringBuilder out, int depth) {
    out.append('{');
    String separator = "";
    for (Map.Entry<?, ?> entry : map.entrySet()) {
      out.append(separator);
      repr(entry.getKey(), out, depth + 1);
      out.append(": ");
      repr(entry.getValue(), out, depth + 1);
      separator = ", ";
    }
    out.append('}');
  }

  private static void quote(String text, StringBuilder out) {
    char quote = text.indexOf('\'') >= 0 && text.indexOf('"') < 0 ? '"' : '\'';
    out.append(quote);
    for (int i = 0; i < text.length(); ) {
      int c = text.codePointAt(i);
      i += Character.charCount(c);
      switch (c) {
        case '\\' -> out.append("\\\\");
        case '\n' -> out.append("\\n");
        case '\r' -> out.append("\\r");
        case '\t' -> out.append("\\t");
        default -> {
          if (c == quote) {
            out.append('\\').append(quote);
          } else if (isPrintable(c)) {
            out.appendCodePoint(c);
          } else if (c < 0x100) {
            out.append(String.format("\\x%02x", c));
          } else if (c < 0x10000) {
            out.append(String.format("\\u%04x", c));
          } else {
            out.append(String.format("\\U%08x", c));
          }
        }
      }
    }
    out.append(quote);
  }

  static boolean isPrintable(int c) {
    if (c == ' ') {
      return true;
    }
    return switch (Character.getType(c)) {
      case Character.CONTROL,
          Character.FORMAT,
          Character.SURROGATE,
          Character.PRIVATE_USE,
          Character.UNASSIGNED,
          Character.LINE_SEPARATOR,
          Character.PARAGRAPH_SEPARATOR,
          Character.SPACE_SEPARATOR ->
          false;
      default -> true;
    };
  }

  /** Python's repr of a float: the shortest digits that give it back. */
  static String real(double number) {
    if (Double.isNaN(number)) {
      return "nan";
    }
    if (Double.isInfinite(number)) {
      return number > 0 ? "inf" : "-inf";
    }
    if (number == 0) {
      return 1 / number < 0 ? "-0.0" : "0.0";
    }
    BigDecimal shortest = new BigDecimal(Double.toString(Math.abs(number))).stripTrailingZeros();
    String digits = shortest.unscaledValue().toString();
    int exponent = digits.length() - shortest.scale() - 1;
    StringBuilder out = new StringBuilder(number < 0 ? "-" : "");
    if (exponent < -4 || exponent >= 16) {
      out.append(digits.charAt(0));
      if (digits.length() > 1) {
        out.append('.').append(digits, 1, digits.length());
      }
      int size = Math.abs(exponent);
      out.append(exponent < 0 ? "e-" : "e+").append(size < 10 ? "0" : "").append(size);
    } else if (exponent < 0) {
      out.append("0.").append("0".repeat(-exponent - 1)).append(digits);
    } else if (digits.length() <= exponent + 1) {
      out.append(digits).append("0".repeat(exponent + 1 - digits.length())).append(".0");
    } else {
      out.append(digits, 0, exponent + 1).append('.').append(digits, exponent + 1, digits.length());
    }
    return out.toString();
  }

  /**
   * JSON text as Python's {@code json.dumps} writes it.
   *
   * @param indent what each level is indented by; null for one line
   */
  record Json(
      @Nullable String indent,
      String itemSeparator,
      String keySeparator,
      boolean ascii,
      boolean sorted) {

    String write(Object value) {
      StringBuilder out = new StringBuilder();
      write(value, out, 0);
      return out.toString();
    }

    private void write(Object value, StringBuilder out, int depth) {
      if (depth > MAX_DEPTH) {
        throw new TemplateFailure("a value is nested more than " + MAX_DEPTH + " deep");
      }
      Budget.growing(out);
      switch (value) {
        case None none -> out.append("null");
        case Boolean flag -> out.append(flag ? "true" : "false");
        case BigInteger integer -> out.append(integer);
        case Double number -> out.append(jsonNumber(number));
        case String text -> string(text, out);
        case Markup markup -> string(markup.text(), out);
        case List<?> list -> list(list, out, depth);
        case Tuple tuple -> list(tuple.items(), out, depth);
        case Map<?, ?> map -> map(map, out, depth);
        default ->
            throw new TemplateFailure(
                "Object of type " + Values.type(value) + " is not JSON serializable");
      }
    }

    private void list(List<?> items, StringBuilder out, int depth) {
      if (items.isEmpty()) {
        out.append("[]");
        return;
      }
      out.append('[');
      boolean first = true;
      for (Object item : items) {
        separate(first, out, depth + 1);
        write(item, out, depth + 1);
        first = false;
      }
      newLine(out, depth);
      out.append(']');
    }

    private void map(Map<?, ?> map, StringBuilder out, int depth) {
      if (map.isEmpty()) {
        out.append("{}");
        return;
      }
      List<Object> keys = new ArrayList<>(map.keySet());
      if (sorted) {
        Collections.sort(keys, Values.ORDER);
      }
      out.append('{');
      boolean first = true;
      for (Object key : keys) {
        separate(first, out, depth + 1);
        string(key(key), out);
        out.append(keySeparator);
        Object value = map.get(key);
        write(value == null ? None.NONE : value, out, depth + 1);
        first = false;
      }
      newLine(out, depth);
      out.append('}');
    }

    private static String key(Object key) {
      return switch (key) {
        case String text -> text;
        case None none -> "null";
        case Boolean flag -> flag ? "true" : "false";
        case BigInteger integer -> integer.toString();
        case Double number -> jsonNumber(number);
        default ->
            throw new TemplateFailure(
                "keys must be str, int, float, bool or None, not " + Values.type(key));
      };
    }

    private static String jsonNumber(double number) {
      if (Double.isNaN(number)) {
        return "NaN";
      }
      if (Double.isInfinite(number)) {
        return number > 0 ? "Infinity" : "-Infinity";
      }
      return real(number);
    }

    private void separate(boolean first, StringBuilder out, int depth) {
      if (!first) {
        out.append(itemSeparator);
      }
      newLine(out, depth);
    }

    private void newLine(StringBuilder out, int depth) {
      if (indent != null) {
        out.append('\n').repeat(indent, depth);
      }
    }

    private void string(String text, StringBuilder out) {
      out.append('"');
      for (int i = 0; i < text.length(); i++) {
        char c = text.charAt(i);
        switch (c) {
          case '"' -> out.append("\\\"");
          case '\\' -> out.append("\\\\");
          case '\n' -> out.append("\\n");
          case '\r' -> out.append("\\r");
          case '\t' -> out.append("\\t");
          case '\f' -> out.append("\\f");
          case '\b' -> out.append("\\b");
          default -> {
            if (c < 0x20 || (ascii && c > 0x7e)) {
              out.append(String.format("\\u%04x", (int) c));
            } else {
              out.append(c);
            }
          }
        }
      }
      out.append('"');
    }
  }
}
