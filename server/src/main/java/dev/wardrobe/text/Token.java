package dev.wardrobe.text;

/**
 * One lexical element of a template.
 *
 * @param value a name, an operator's characters, the text of data and strings, or a number's digits
 * @param line from 1
 * @param column from 1, in characters
 */
record Token(Kind kind, String value, int line, int column) {

  enum Kind {
    DATA,
    VARIABLE_BEGIN,
    VARIABLE_END,
    BLOCK_BEGIN,
    BLOCK_END,
    NAME,
    STRING,
    INTEGER,
    FLOAT,
    OPERATOR,
    END
  }

  boolean is(Kind kind, String value) {
    return this.kind == kind && this.value.equals(value);
  }

  boolean operator(String value) {
    return is(Kind.OPERATOR, value);
  }

  boolean name(String value) {
    return is(Kind.NAME, value);
  }

  /** How messages speak of this token. */
  String described() {
    return switch (kind) {
      case DATA -> "template text";
      case VARIABLE_BEGIN -> "'{{'";
      case VARIABLE_END -> "'}}'";
      case BLOCK_BEGIN -> "'{%'";
      case BLOCK_END -> "'%}'";
      case STRING -> "a string";
      case END -> "the end of the template";
      case NAME, INTEGER, FLOAT, OPERATOR -> "'" + value + "'";
    };
  }
}
