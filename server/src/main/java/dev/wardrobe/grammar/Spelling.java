package dev.wardrobe.grammar;

import java.util.ArrayList;
import java.util.List;
import java.util.Locale;

/** How a character is written. */
enum Spelling {
  /** In UTF-8. */
  PLAIN {
    @Override
    Expr of(CodePoints characters) {
      return characters.utf8();
    }
  },
  /** Inside a JSON string, each in one way: with a backslash where there must be one. */
  JSON {
    @Override
    Expr of(CodePoints characters) {
      List<Expr> options = new ArrayList<>();
      CodePoints plain = characters.and(UNESCAPED);
      if (!plain.isEmpty()) {
        options.add(plain.utf8());
      }
      CodePoints escaped = characters.and(UNESCAPED.not());
      for (int i = 0; i < escaped.size(); i++) {
        for (int c = escaped.low(i); c <= escaped.high(i); c++) {
          options.add(Expr.text(escape(c)));
        }
      }
      return Expr.choice(options);
    }
  };

  /** What a JSON string may hold as it is. */
  static final CodePoints UNESCAPED =
      CodePoints.ranges(0x20, 0x21, 0x23, 0x5b, 0x5d, Character.MAX_CODE_POINT);

  /** One of these characters. */
  abstract Expr of(CodePoints characters);

  /** This text. */
  Expr of(String text) {
    if (this == PLAIN) {
      return Expr.text(text);
    }
    StringBuilder spelled = new StringBuilder();
    text.codePoints()
        .forEach(
            c -> {
              if (UNESCAPED.contains(c)) {
                spelled.appendCodePoint(c);
              } else {
                spelled.append(escape(c));
              }
            });
    return Expr.text(spelled.toString());
  }

  static String escape(int c) {
    return switch (c) {
      case '"' -> "\\\"";
      case '\\' -> "\\\\";
      case '\b' -> "\\b";
      case '\f' -> "\\f";
      case '\n' -> "\\n";
      case '\r' -> "\\r";
      case '\t' -> "\\t";
      default -> String.format(Locale.ROOT, "\\u%04x", c);
    };
  }
}
