package dev.wardrobe.text;

import java.util.ArrayList;
import java.util.List;

/** Python's notions of text: whitespace, code points as characters, escapes, slices. */
final class PythonText {

  private PythonText() {}

  static boolean isSpace(int c) {
    return (c >= 0x9 && c <= 0xd)
        || (c >= 0x1c && c <= 0x20)
        || c == 0x85
        || c == 0xa0
        || c == 0x1680
        || (c >= 0x2000 && c <= 0x200a)
        || c == 0x2028
        || c == 0x2029
        || c == 0x202f
        || c == 0x205f
        || c == 0x3000;
  }

  /** Whether there is text from {@code from} on and all of it is whitespace. */
  static boolean isBlank(String text, int from) {
    return from < text.length() && text.chars().skip(from).allMatch(PythonText::isSpace);
  }

  static String rstrip(String text) {
    int end = text.length();
    while (end > 0 && isSpace(text.charAt(end - 1))) {
      end--;
    }
    return text.substring(0, end);
  }

  static String lstrip(String text) {
    int start = 0;
    while (start < text.length() && isSpace(text.charAt(start))) {
      start++;
    }
    return text.substring(start);
  }

  static String strip(String text) {
    return lstrip(rstrip(text));
  }

  static String lstrip(String text, String characters) {
    int start = 0;
    while (start < text.length()) {
      int c = text.codePointAt(start);
      if (characters.indexOf(c) < 0) {
        break;
      }
      start += Character.charCount(c);
    }
    return text.substring(start);
  }

  static String rstrip(String text, String characters) {
    int end = text.length();
    while (end > 0) {
      int c = text.codePointBefore(end);
      if (characters.indexOf(c) < 0) {
        break;
      }
      end -= Character.charCount(c);
    }
    return text.substring(0, end);
  }

  static int length(String text) {
    return text.codePointCount(0, text.length());
  }

  /** Whether each character is one {@code char}, so that indices need no translation. */
  private static boolean simple(String text) {
    return length(text) == text.length();
  }

  /** The characters from {@code start} to {@code stop}, both within the text. */
  static String between(String text, int start, int stop) {
    if (start >= stop) {
      return "";
    }
    if (simple(text)) {
      return text.substring(start, stop);
    }
    int from = text.offsetByCodePoints(0, start);
    return text.substring(from, text.offsetByCodePoints(from, stop - start));
  }

  /** The place of a {@code char} counted in characters. */
  static int toCharacters(String text, int index) {
    return text.codePointCount(0, index);
  }

  static List<Object> characters(String text) {
    List<Object> result = new ArrayList<>(text.length());
    text.codePoints().forEach(c -> result.add(Character.toString(c)));
    return result;
  }

  /** Lines with Python's many separators, which are kept if {@code keepEnds}. */
  static List<String> lines(String text, boolean keepEnds) {
    List<String> lines = new ArrayList<>();
    int start = 0;
    for (int i = 0; i < text.length(); i++) {
      if (!isLineEnd(text.charAt(i))) {
        continue;
      }
      int end = i + 1;
      if (text.charAt(i) == '\r' && end < text.length() && text.charAt(end) == '\n') {
        end++;
      }
      lines.add(text.substring(start, keepEnds ? end : i));
      start = end;
      i = end - 1;
    }
    if (start < text.length()) {
      lines.add(text.substring(start));
    }
    return lines;
  }

  private static boolean isLineEnd(char c) {
    return (c >= 0xa && c <= 0xd)
        || (c >= 0x1c && c <= 0x1e)
        || c == 0x85
        || c == 0x2028
        || c == 0x2029;
  }

  /** Resolves the escapes of a string literal. */
  static String unescape(String text) {
    if (text.indexOf('\\') < 0) {
      return text;
    }
    StringBuilder out = new StringBuilder(text.length());
    int i = 0;
    while (i < text.length()) {
      char c = text.charAt(i++);
      if (c != '\\' || i == text.length()) {
        out.append(c);
        continue;
      }
      char escape = text.charAt(i++);
      switch (escape) {
        case '\n' -> {}
        case '\\', '\'', '"' -> out.append(escape);
        case 'a' -> out.append('\u0007');
        case 'b' -> out.append('\b');
        case 'f' -> out.append('\f');
        case 'n' -> out.append('\n');
        case 'r' -> out.append('\r');
        case 't' -> out.append('\t');
        case 'v' -> out.append('\u000b');
        case 'x' -> i = hexadecimal(text, i, 2, out);
        case 'u' -> i = hexadecimal(text, i, 4, out);
        case 'U' -> i = hexadecimal(text, i, 8, out);
        case 'N' -> i = named(text, i, out);
        default -> {
          if (escape >= '0' && escape <= '7') {
            int end = i;
            while (end < text.length() && end < i + 2 && isOctal(text.charAt(end))) {
              end++;
            }
            out.appendCodePoint(Integer.parseInt(text.substring(i - 1, end), 8));
            i = end;
          } else {
            out.append('\\').append(escape);
          }
        }
      }
    }
    return out.toString();
  }

  private static boolean isOctal(char c) {
    return c >= '0' && c <= '7';
  }

  private static int hexadecimal(String text, int at, int digits, StringBuilder out) {
    int end = at + digits;
    long value = 0;
    for (int i = at; i < end; i++) {
      int digit = i < text.length() ? Character.digit(text.charAt(i), 16) : -1;
      if (digit < 0 || text.charAt(i) > 'f') {
        throw new TemplateFailure("an escape needs " + digits + " hexadecimal digits");
      }
      value = value << 4 | digit;
    }
    if (value > Character.MAX_CODE_POINT) {
      throw new TemplateFailure("an escape beyond the last character of Unicode");
    }
    out.appendCodePoint((int) value);
    return end;
  }

  private static int named(String text, int at, StringBuilder out) {
    int end = text.indexOf('}', at);
    if (at >= text.length() || text.charAt(at) != '{' || end < 0) {
      throw new TemplateFailure("malformed \\N character escape");
    }
    try {
      out.appendCodePoint(Character.codePointOf(text.substring(at + 1, end)));
    } catch (IllegalArgumentException e) {
      throw new TemplateFailure("unknown Unicode character name");
    }
    return end + 1;
  }
}
