package dev.wardrobe.grammar;

import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;

/** A set of byte strings, as an expression over bytes and over rules, which have names. */
sealed interface Expr {
  int UNBOUNDED = -1;

  /** The empty string. */
  Expr EMPTY = new Sequence(List.of());

  /** No string at all. */
  Expr NOTHING = new Choice(List.of());

  /** One byte from {@code low} to {@code high}. */
  record Bytes(int low, int high) implements Expr {}

  /** These bytes. */
  @SuppressWarnings("ArrayRecordComponent")
  record Literal(byte[] bytes) implements Expr {}

  record Sequence(List<Expr> parts) implements Expr {}

  record Choice(List<Expr> options) implements Expr {}

  /** {@code min} to {@code max} times. */
  record Repeat(Expr body, int min, int max) implements Expr {}

  /** What an automaton accepts. */
  record Language(Automaton automaton) implements Expr {}

  /** What a rule derives, which is never the empty string. */
  record Call(int rule) implements Expr {}

  /**
   * What the ways from state 0 to the last state spell.
   *
   * @param size number of states
   */
  record Graph(int size, List<Edge> edges) implements Expr {}

  /** A step between two states of a {@link Graph}. */
  record Edge(int from, Expr label, int to) {}

  /** Nothing, at the start or the end of what an automaton reads. */
  enum Anchor implements Expr {
    START,
    END
  }

  static Expr text(String text) {
    return new Literal(text.getBytes(StandardCharsets.UTF_8));
  }

  static Expr bytes(int low, int high) {
    return new Bytes(low, high);
  }

  /** One of these ASCII characters. */
  static Expr oneOf(String characters) {
    List<Expr> options = new ArrayList<>();
    for (int i = 0; i < characters.length(); i++) {
      options.add(new Bytes(characters.charAt(i), characters.charAt(i)));
    }
    return new Choice(options);
  }

  static Expr sequence(Expr... parts) {
    return new Sequence(List.of(parts));
  }

  static Expr choice(Expr... options) {
    return new Choice(List.of(options));
  }

  static Expr choice(List<Expr> options) {
    return options.size() == 1 ? options.getFirst() : new Choice(List.copyOf(options));
  }

  static Expr optional(Expr body) {
    return new Repeat(body, 0, 1);
  }

  static Expr any(Expr body) {
    return new Repeat(body, 0, UNBOUNDED);
  }

  static Expr some(Expr body) {
    return new Repeat(body, 1, UNBOUNDED);
  }

  static Expr repeat(Expr body, int min, int max) {
    return new Repeat(body, min, max);
  }
}
