package dev.wardrobe.text;

import dev.wardrobe.text.Token.Kind;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.List;

/**
 * Splits a template into tokens, with Jinja's whitespace rules as Hugging Face sets them: the first
 * newline after a block is dropped ({@code trim_blocks}), blanks between the start of a line and a
 * block are dropped ({@code lstrip_blocks}), {@code -} strips all whitespace on its side and {@code
 * +} turns the two rules off. One newline at the very end of the template is dropped too.
 */
final class Lexer {

  private static final List<String> LONG_OPERATORS = List.of("//", "**", "==", "!=", ">=", "<=");
  private static final String SHORT_OPERATORS = "+-/*%~[](){}><=.:|,;";

  private final String source;
  private final List<Token> tokens = new ArrayList<>();
  private int position;

  /** Whether the text before {@link #position} ends a line, for {@code lstrip_blocks}. */
  private boolean lineStarting = true;

  private int line = 1;
  private int lineStart;
  private int counted;

  private Lexer(String source) {
    this.source = source;
  }

  /** Returns the template's tokens; the last one is {@link Kind#END}. */
  static List<Token> tokenize(String template) {
    String source = template.replace("\r\n", "\n").replace('\r', '\n');
    if (source.endsWith("\n")) {
      source = source.substring(0, source.length() - 1);
    }
    Lexer lexer = new Lexer(source);
    lexer.readTemplate();
    return lexer.tokens;
  }

  private void readTemplate() {
    while (position < source.length()) {
      int open = nextOpening(position);
      if (open < 0) {
        data(source.substring(position), position);
        break;
      }
      char type = source.charAt(open + 1);
      char sign = signAt(open + 2);
      int start = position;
      data(beforeTag(source.substring(start, open), sign, type == '{'), start);
      int inside = open + (sign == 0 ? 2 : 3);
      switch (type) {
        case '#' -> readComment(open, inside);
        case '{' -> {
          add(Kind.VARIABLE_BEGIN, "{{", open);
          position = inside;
          readExpression(open, Kind.VARIABLE_END);
        }
        default -> {
          int raw = rawBody(inside);
          if (raw >= 0) {
            readRaw(open, raw);
          } else {
            add(Kind.BLOCK_BEGIN, "{%", open);
            position = inside;
            readExpression(open, Kind.BLOCK_END);
          }
        }
      }
      lineStarting = source.charAt(position - 1) == '\n';
    }
    add(Kind.END, "", source.length());
  }

  private int nextOpening(int from) {
    for (int at = source.indexOf('{', from); at >= 0; at = source.indexOf('{', at + 1)) {
      if (at + 1 < source.length() && "{%#".indexOf(source.charAt(at + 1)) >= 0) {
        return at;
      }
    }
    return -1;
  }

  /** The whitespace sign at {@code at}, or 0. */
  private char signAt(int at) {
    if (at < source.length() && (source.charAt(at) == '-' || source.charAt(at) == '+')) {
      return source.charAt(at);
    }
    return 0;
  }

  private String beforeTag(String text, char sign, boolean variable) {
    if (sign == '-') {
      return PythonText.rstrip(text);
    }
    if (sign == 0 && !variable) {
      int from = text.lastIndexOf('\n') + 1;
      if ((from > 0 || lineStarting) && PythonText.isBlank(text, from)) {
        return text.substring(0, from);
      }
    }
    return text;
  }

  private void readComment(int open, int inside) {
    int end = source.indexOf("#}", inside);
    if (end < 0) {
      throw failure("missing end of comment", open);
    }
    // The closing sign may touch the opening one's place only if it lies after it.
    char sign = end > inside ? signAt(end - 1) : 0;
    position = afterTag(end + 2, sign, true);
  }

  private int afterTag(int end, char sign, boolean trims) {
    if (sign == '-') {
      return skipSpace(end);
    }
    if (sign == 0 && trims && end < source.length() && source.charAt(end) == '\n') {
      return end + 1;
    }
    return end;
  }

  private int skipSpace(int from) {
    int at = from;
    while (at < source.length() && PythonText.isSpace(source.charAt(at))) {
      at++;
    }
    return at;
  }

  /** Where the text after a {@code raw} tag begins, or -1 if this is another tag. */
  private int rawBody(int inside) {
    int at = skipSpace(inside);
    if (!source.startsWith("raw", at)) {
      return -1;
    }
    at = skipSpace(at + 3);
    if (source.startsWith("-%}", at)) {
      return skipSpace(at + 3);
    }
    return source.startsWith("%}", at) ? at + 2 : -1;
  }

  private void readRaw(int open, int body) {
    lineStarting = source.charAt(body - 1) == '\n';
    for (int tag = source.indexOf("{%", body); tag >= 0; tag = source.indexOf("{%", tag + 1)) {
      char sign = signAt(tag + 2);
      int at = skipSpace(tag + (sign == 0 ? 2 : 3));
      if (!source.startsWith("endraw", at)) {
        continue;
      }
      at = skipSpace(at + 6);
      char closing = signAt(at);
      int end = closing == 0 ? at : at + 1;
      if (source.startsWith("%}", end)) {
        data(beforeTag(source.substring(body, tag), sign, false), body);
        position = afterTag(end + 2, closing, true);
        return;
      }
    }
    throw failure("missing end of raw block", open);
  }

  private void readExpression(int open, Kind closing) {
    String close = closing == Kind.VARIABLE_END ? "}}" : "%}";
    Deque<Character> brackets = new ArrayDeque<>();
    while (position < source.length()) {
      char c = source.charAt(position);
      if (brackets.isEmpty()) {
        char sign = signAt(position);
        boolean signed = sign == '-' || (sign == '+' && closing == Kind.BLOCK_END);
        int end = signed ? position + 1 : position;
        if (source.startsWith(close, end)) {
          add(closing, close, position);
          position = afterTag(end + 2, signed ? sign : 0, closing == Kind.BLOCK_END);
          return;
        }
      }
      if (PythonText.isSpace(c)) {
        position++;
      } else if (c >= '0' && c <= '9') {
        readNumber();
      } else if (c == '_' || Character.isLetterOrDigit(source.codePointAt(position))) {
        readName();
      } else if (c == '\'' || c == '"') {
        readString(c);
      } else {
        readOperator(brackets);
      }
    }
    throw failure("'" + (closing == Kind.VARIABLE_END ? "{{" : "{%") + "' is never closed", open);
  }

  private void readNumber() {
    int start = position;
    boolean radix =
        source.charAt(start) == '0'
            && start + 1 < source.length()
            && "xXoObB".indexOf(source.charAt(start + 1)) >= 0;
    if (radix) {
      position += 2;
      while (position < source.length()
          && (Character.digit(source.charAt(position), 16) >= 0
              || source.charAt(position) == '_')) {
        position++;
      }
      integer(start);
      return;
    }
    digits();
    // "1.5" after a dot is two subscripts (x.1.5), as in Jinja.
    boolean subscript = start > 0 && source.charAt(start - 1) == '.';
    boolean real = false;
    if (!subscript && digitAt(position + 1) && source.charAt(position) == '.') {
      position++;
      digits();
      real = true;
    }
    if (!subscript && position < source.length() && (source.charAt(position) | 0x20) == 'e') {
      int exponent = position + 1;
      if (exponent < source.length() && "+-".indexOf(source.charAt(exponent)) >= 0) {
        exponent++;
      }
      if (digitAt(exponent)) {
        position = exponent;
        digits();
        real = true;
      }
    }
    if (real) {
      add(Kind.FLOAT, source.substring(start, position).replace("_", ""), start);
    } else {
      integer(start);
    }
  }

  private void integer(int start) {
    String digits = source.substring(start, position).replace("_", "");
    boolean leadingZero = digits.length() > 1 && digits.charAt(0) == '0';
    if (leadingZero && digits.chars().allMatch(Character::isDigit) && !digits.matches("0+")) {
      throw failure("integer '" + digits + "' has a leading zero", start);
    }
    add(Kind.INTEGER, digits, start);
  }

  private void digits() {
    while (digitAt(position)
        || (position < source.length()
            && source.charAt(position) == '_'
            && digitAt(position + 1))) {
      position++;
    }
  }

  private boolean digitAt(int at) {
    return at < source.length() && source.charAt(at) >= '0' && source.charAt(at) <= '9';
  }

  private void readName() {
    int start = position;
    while (position < source.length()) {
      int c = source.codePointAt(position);
      if (c != '_' && !Character.isUnicodeIdentifierPart(c)) {
        break;
      }
      position += Character.charCount(c);
    }
    if (position == start) {
      throw failure(
          "unexpected character '" + Character.toString(source.codePointAt(start)) + "'", start);
    }
    add(Kind.NAME, source.substring(start, position), start);
  }

  private void readString(char quote) {
    int start = position;
    int at = start + 1;
    while (at < source.length() && source.charAt(at) != quote) {
      at += source.charAt(at) == '\\' ? 2 : 1;
    }
    if (at >= source.length()) {
      throw failure("a string is never closed", start);
    }
    position = at + 1;
    try {
      add(Kind.STRING, PythonText.unescape(source.substring(start + 1, at)), start);
    } catch (TemplateFailure badEscape) {
      throw failure(badEscape.text(), start);
    }
  }

  private void readOperator(Deque<Character> brackets) {
    String operator = null;
    for (String candidate : LONG_OPERATORS) {
      if (source.startsWith(candidate, position)) {
        operator = candidate;
      }
    }
    char c = source.charAt(position);
    if (operator == null) {
      if (SHORT_OPERATORS.indexOf(c) < 0) {
        throw failure(
            "unexpected character '" + Character.toString(source.codePointAt(position)) + "'",
            position);
      }
      operator = String.valueOf(c);
    }
    switch (c) {
      case '{' -> brackets.push('}');
      case '(' -> brackets.push(')');
      case '[' -> brackets.push(']');
      case '}', ')', ']' -> {
        if (brackets.isEmpty()) {
          throw failure("unexpected '" + c + "'", position);
        }
        char expected = brackets.pop();
        if (expected != c) {
          throw failure("unexpected '" + c + "', expected '" + expected + "'", position);
        }
      }
      default -> {}
    }
    add(Kind.OPERATOR, operator, position);
    position += operator.length();
  }

  private void data(String text, int start) {
    if (!text.isEmpty()) {
      add(Kind.DATA, text, start);
    }
  }

  private void add(Kind kind, String value, int at) {
    place(at);
    tokens.add(new Token(kind, value, line, at - lineStart + 1));
  }

  private TemplateFailure failure(String message, int at) {
    place(at);
    return syntax(message, line, at - lineStart + 1);
  }

  static TemplateFailure syntax(String message, int line, int column) {
    return new TemplateFailure("line " + line + ", column " + column + ": " + message);
  }

  /** Moves the line count to {@code at}; places only grow, but for an error's. */
  private void place(int at) {
    if (at < counted) {
      line = 1;
      lineStart = 0;
      counted = 0;
    }
    for (; counted < at; counted++) {
      if (source.charAt(counted) == '\n') {
        line++;
        lineStart = counted + 1;
      }
    }
  }
}
