package dev.wardrobe.grammar;

import com.fasterxml.jackson.databind.JsonNode;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;

/** The rules of JSON itself, and what its values may be written like. */
final class JsonText {
  // Longer numbers are left out: a model that repeats digits would never end, and readers that
  // hold numbers in 64 bits lose or refuse them.
  static final int INTEGER_DIGITS = 19;
  static final int FRACTION_DIGITS = 17;

  /** Blanks of one indentation. */
  private static final int INDENTATION = 40;

  final Rules rules;

  /** What may stand behind an opening bracket, a comma and a colon, and before a closing one. */
  final Expr gap;

  /** A character of a string, in every way that it may be written. */
  final int character;

  final int string;
  final int number;
  private final int value;
  private final int object;
  private final int array;

  JsonText(Rules rules, boolean compact) throws GrammarException {
    this.rules = rules;
    gap =
        compact
            ? Expr.EMPTY
            : Expr.optional(
                new Expr.Call(
                    rules.add(
                        Expr.choice(
                            Expr.text(" "),
                            Expr.sequence(
                                Expr.optional(Expr.text("\r")),
                                Expr.text("\n"),
                                Expr.repeat(Expr.oneOf(" \t"), 0, INDENTATION))))));
    Expr anyCharacter =
        Expr.choice(Spelling.UNESCAPED.utf8(), Expr.sequence(Expr.text("\\"), escape()));
    character = rules.add(anyCharacter);
    string = rules.add(Expr.sequence(Expr.text("\""), Expr.any(anyCharacter), Expr.text("\"")));
    number =
        rules.add(
            Expr.sequence(
                Expr.optional(Expr.text("-")),
                integerPart(),
                Expr.optional(
                    Expr.sequence(Expr.text("."), Expr.repeat(digit(), 1, FRACTION_DIGITS))),
                Expr.optional(
                    Expr.sequence(
                        Expr.oneOf("eE"),
                        Expr.optional(Expr.oneOf("+-")),
                        Expr.repeat(digit(), 1, 2)))));
    value = rules.reserve();
    object = rules.reserve();
    array = rules.reserve();
    Expr any = new Expr.Call(value);
    Expr anObject =
        object(List.of(new Member(pair(string(), any), false, true, true)), 0, Expr.UNBOUNDED);
    Expr anArray =
        Expr.sequence(
            Expr.text("["),
            gap,
            Expr.optional(
                Expr.sequence(any, Expr.any(Expr.sequence(Expr.text(","), gap, any)), gap)),
            Expr.text("]"));
    rules.define(object, anObject);
    rules.define(array, anArray);
    // Written out rather than called, so that a level of nesting is one open rule.
    rules.define(
        value,
        Expr.choice(
            anObject,
            anArray,
            string(),
            number(),
            Expr.text("true"),
            Expr.text("false"),
            Expr.text("null")));
  }

  Expr string() {
    return new Expr.Call(string);
  }

  Expr number() {
    return new Expr.Call(number);
  }

  /** Any integer, without a fraction or an exponent. */
  Expr integer() {
    return Expr.sequence(Expr.optional(Expr.text("-")), integerPart());
  }

  Expr value() {
    return new Expr.Call(value);
  }

  int valueRule() {
    return value;
  }

  int objectRule() {
    return object;
  }

  Expr object() {
    return new Expr.Call(object);
  }

  Expr array() {
    return new Expr.Call(array);
  }

  static Expr digit() {
    return Expr.bytes('0', '9');
  }

  private static Expr integerPart() {
    return Expr.choice(
        Expr.text("0"),
        Expr.sequence(Expr.bytes('1', '9'), Expr.repeat(digit(), 0, INTEGER_DIGITS - 1)));
  }

  /** What may follow a backslash; characters beyond the first 65,536 are two escapes. */
  private static Expr escape() {
    Expr hex = Expr.choice(digit(), Expr.bytes('a', 'f'), Expr.bytes('A', 'F'));
    Expr single =
        Expr.choice(
            Expr.sequence(Expr.choice(digit(), Expr.oneOf("abcefABCEF")), hex, hex, hex),
            Expr.sequence(Expr.oneOf("dD"), Expr.bytes('0', '7'), hex, hex));
    Expr pair =
        Expr.sequence(
            Expr.oneOf("dD"),
            Expr.oneOf("89abAB"),
            hex,
            hex,
            Expr.text("\\u"),
            Expr.oneOf("dD"),
            Expr.oneOf("cdefCDEF"),
            hex,
            hex);
    return Expr.choice(
        Expr.oneOf("\"\\/bfnrt"), Expr.sequence(Expr.text("u"), Expr.choice(single, pair)));
  }

  /**
   * A member that an object may have at its place.
   *
   * @param written name and value
   * @param repeated whether there may be any number of such
   * @param counts whether it is one more of the members that are counted
   */
  record Member(Expr written, boolean required, boolean repeated, boolean counts) {}

  /** A member's name, quotes included, and value as they are written. */
  Expr pair(Expr key, Expr value) {
    return Expr.sequence(key, Expr.text(":"), gap, value);
  }

  /**
   * An object with members in this order.
   *
   * @param min fewest members
   * @param max most members, or {@link Expr#UNBOUNDED}
   */
  Expr object(List<Member> members, int min, int max) throws GrammarException {
    // A state for each member that may be next, with so many written; beyond what matters, all
    // counts are one, but none is kept apart, since no comma follows it.
    int counts = (max == Expr.UNBOUNDED ? Math.max(min, 1) : max) + 1;
    long size = (long) (members.size() + 1) * counts + 1;
    if (size > Budget.STATES) {
      rules.budget.states(size);
    }
    int last = (int) size - 1;
    List<Expr.Edge> edges = new ArrayList<>();
    for (int i = 0; i < members.size(); i++) {
      Member member = members.get(i);
      Expr written = Expr.sequence(gap, member.written());
      Expr behind = Expr.sequence(Expr.text(","), written);
      for (int count = 0; count < counts; count++) {
        int from = i * counts + count;
        int next = count + 1 < counts ? count + 1 : max == Expr.UNBOUNDED ? count : counts;
        if (!member.counts() && count > 0) {
          next = count;
        }
        if (next < counts) {
          int to = (member.repeated() ? i : i + 1) * counts + next;
          edges.add(new Expr.Edge(from, count == 0 ? written : behind, to));
        }
        if (!member.required()) {
          edges.add(new Expr.Edge(from, Expr.EMPTY, from + counts));
        }
      }
    }
    Expr close = Expr.sequence(gap, Expr.text("}"));
    for (int count = min; count < counts; count++) {
      edges.add(new Expr.Edge(members.size() * counts + count, close, last));
    }
    return Expr.sequence(Expr.text("{"), new Expr.Graph((int) size, edges));
  }

  /** A value as it is written, with gaps where they may be. */
  Expr literal(JsonNode value) {
    if (value.isObject()) {
      List<Expr> parts = new ArrayList<>();
      parts.add(Expr.text("{"));
      boolean first = true;
      for (Map.Entry<String, JsonNode> member : value.properties()) {
        if (!first) {
          parts.add(Expr.text(","));
        }
        first = false;
        parts.add(gap);
        parts.add(pair(key(member.getKey()), literal(member.getValue())));
      }
      parts.add(gap);
      parts.add(Expr.text("}"));
      return new Expr.Sequence(parts);
    }
    if (value.isArray()) {
      List<Expr> parts = new ArrayList<>();
      parts.add(Expr.text("["));
      for (int i = 0; i < value.size(); i++) {
        if (i > 0) {
          parts.add(Expr.text(","));
        }
        parts.add(gap);
        parts.add(literal(value.get(i)));
      }
      parts.add(gap);
      parts.add(Expr.text("]"));
      return new Expr.Sequence(parts);
    }
    return value.isTextual() ? key(value.textValue()) : Expr.text(value.toString());
  }

  /** A string as it is written, quotes included. */
  static Expr key(String text) {
    return Expr.sequence(Expr.text("\""), Spelling.JSON.of(text), Expr.text("\""));
  }
}
