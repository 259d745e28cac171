package dev.wardrobe.http;

import com.fasterxml.jackson.databind.JsonNode;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.UUID;
import org.jspecify.annotations.Nullable;

/**
 * Finds calls of functions in an answer's text as it grows. What begins like a call and is none is
 * text after all: nothing is lost.
 */
final class ToolCallParser {
  private static final String OPEN = "<tool_call>";
  private static final String CLOSE = "</tool_call>";

  /** How calls are written. */
  enum Style {
    /** Not at all. */
    NONE,
    /** Hermes and Qwen: objects with name and arguments between {@code <tool_call>} tags. */
    TAGS,
    /** Llama 3: objects with name and parameters, with a semicolon between them, and no text. */
    OBJECTS,
    /** Mistral, and calls that are asked for: a list of objects. */
    LIST,
    /** The arguments of the one function that is asked for. */
    ARGUMENTS
  }

  /** A part of an answer. */
  sealed interface Part {
    /** Text to read. */
    record Text(String text) implements Part {}

    /** A call begins. */
    record Call(int index, String id, String name) implements Part {}

    /** More of the arguments of a call. */
    record Arguments(int index, String json) implements Part {}
  }

  private enum State {
    /** Nothing but blanks yet. */
    START,
    TEXT,
    CALL,
    /** Behind a call. */
    BEHIND,
    ARGUMENTS
  }

  private final Style style;
  private final Set<String> functions;
  private final boolean several;
  private final List<Part> found = new ArrayList<>();
  private final StringBuilder text = new StringBuilder();

  /** Of the latest call, what is not among what was found yet. */
  private final StringBuilder arguments = new StringBuilder();

  /** What may be the beginning of a tag, and the blanks before it. */
  private final StringBuilder held = new StringBuilder();

  /** How much of a tag, or of what goes between two calls, is at the end of what is held. */
  private int matched;

  /** Whether blanks are behind that. */
  private boolean gap;

  /** What a call took, while it may yet turn out to be text. */
  private final StringBuilder taken = new StringBuilder();

  private State state;
  private CallScanner scanner = new CallScanner();
  private int calls;

  /**
   * @param functions the names of those that there are; with {@link Style#ARGUMENTS} the one
   * @param several whether there may be more than one call; further ones are left out
   */
  ToolCallParser(Style style, Set<String> functions, boolean several) {
    this.style = style;
    this.functions = Set.copyOf(functions);
    this.several = several;
    state =
        switch (style) {
          case NONE, TAGS -> State.TEXT;
          case OBJECTS, LIST -> State.START;
          case ARGUMENTS -> State.ARGUMENTS;
        };
  }

  /** How many calls there were. */
  int calls() {
    return calls;
  }

  /** Takes more text; returns what it completes. */
  List<Part> add(String more) {
    if (style == Style.NONE) {
      text.append(more);
    } else {
      for (int i = 0; i < more.length(); i++) {
        step(more.charAt(i));
      }
    }
    return release();
  }

  /** The text has ended; returns what was held back. */
  List<Part> end() {
    if (state == State.CALL) {
      giveBack();
    }
    boolean trailing = calls > 0 && held.toString().isBlank();
    if (!trailing) {
      text.append(held);
    }
    letGo();
    return release();
  }

  private List<Part> release() {
    flushText();
    flushArguments();
    List<Part> parts = List.copyOf(found);
    found.clear();
    return parts;
  }

  private void flushText() {
    if (!text.isEmpty()) {
      flushArguments();
      found.add(new Part.Text(text.toString()));
      text.setLength(0);
    }
  }

  private void step(char c) {
    switch (state) {
      case START -> start(c);
      case TEXT -> {
        if (style == Style.TAGS) {
          hold(c);
        } else {
          text.append(c);
        }
      }
      case CALL -> call(c);
      case BEHIND -> behind(c);
      case ARGUMENTS -> {
        if (calls == 0) {
          begin(functions.iterator().next());
        }
        arguments(String.valueOf(c));
      }
    }
  }

  private void start(char c) {
    held.append(c);
    if (Character.isWhitespace(c)) {
      return;
    }
    if (c == (style == Style.LIST ? '[' : '{')) {
      taken.append(held);
      letGo();
      enter();
      if (style == Style.OBJECTS) {
        scanner.take(c);
      }
    } else {
      toText();
    }
  }

  /** What was held is text, and so is the rest. */
  private void toText() {
    state = State.TEXT;
    text.append(held);
    letGo();
  }

  /** Holds nothing any more. */
  private void letGo() {
    held.setLength(0);
    matched = 0;
    gap = false;
  }

  private void enter() {
    state = State.CALL;
    scanner = new CallScanner();
  }

  /** Keeps back what may be the tag, and blanks before it; everything else is text. */
  private void hold(char c) {
    if (matched > 0 && c != OPEN.charAt(matched)) {
      // Nothing within the tag could be its beginning, but this may be.
      text.append(held);
      letGo();
    }
    held.append(c);
    if (c == OPEN.charAt(matched)) {
      matched++;
      if (matched == OPEN.length()) {
        taken.append(held);
        letGo();
        enter();
      }
    } else if (!Character.isWhitespace(c)) {
      text.append(held);
      letGo();
    }
  }

  private void call(char c) {
    if (taken.length() > 0) {
      taken.append(c);
    }
    String before = scanner.name();
    if (!scanner.take(c)) {
      broken();
      return;
    }
    String name = scanner.name();
    if (before == null && name != null) {
      if (!functions.contains(name)) {
        broken();
        return;
      }
      taken.setLength(0);
      begin(name);
    }
    if (name != null) {
      arguments(scanner.arguments());
    }
    if (scanner.done()) {
      if (name == null) {
        broken();
        return;
      }
      if (scanner.withoutArguments()) {
        arguments("{}");
      }
      state = State.BEHIND;
    }
  }

  /** It was none, or none that can be gone on with. */
  private void broken() {
    if (taken.isEmpty()) {
      // A part of it was told already.
      state = State.TEXT;
    } else {
      giveBack();
    }
  }

  private void giveBack() {
    state = State.TEXT;
    text.append(taken);
    taken.setLength(0);
  }

  private void behind(char c) {
    held.append(c);
    if (Character.isWhitespace(c)) {
      gap = matched > 0;
    } else if (style == Style.TAGS) {
      if (gap || c != CLOSE.charAt(matched)) {
        toText();
        return;
      }
      matched++;
      if (matched == CLOSE.length()) {
        letGo();
        state = State.TEXT;
      }
    } else if (matched == 0 && (c == ';' || c == ',')) {
      matched++;
    } else if (c == '{') {
      taken.append(held);
      letGo();
      enter();
      scanner.take(c);
    } else if (c == ']' && style == Style.LIST) {
      letGo();
      state = State.TEXT;
    } else {
      toText();
    }
  }

  private void begin(String name) {
    flushText();
    flushArguments();
    calls++;
    if (told()) {
      found.add(
          new Part.Call(
              calls - 1,
              "call_" + UUID.randomUUID().toString().replace("-", "").substring(8),
              name));
    }
  }

  private void arguments(String json) {
    if (told()) {
      flushText();
      arguments.append(json);
    }
  }

  private void flushArguments() {
    if (!arguments.isEmpty()) {
      found.add(new Part.Arguments(calls - 1, arguments.toString()));
      arguments.setLength(0);
    }
  }

  private boolean told() {
    return several || calls == 1;
  }

  /** Reads {@code {"name": "...", "arguments": ...}}, a character at a time. */
  private static final class CallScanner {
    private enum Place {
      OPEN,
      KEY,
      COLON,
      VALUE,
      END
    }

    private final StringBuilder key = new StringBuilder();
    private final StringBuilder value = new StringBuilder();
    private final StringBuilder arguments = new StringBuilder();
    private Place place = Place.OPEN;

    /** Whether the key is that of arguments. */
    private boolean ofArguments;

    private @Nullable String name;
    private boolean argued;
    private int depth;
    private boolean quoted;
    private boolean escaped;

    @Nullable String name() {
      return name;
    }

    boolean done() {
      return place == Place.END;
    }

    boolean withoutArguments() {
      return !argued;
    }

    /** What there is of the arguments since this was asked before. */
    String arguments() {
      String more = arguments.toString();
      arguments.setLength(0);
      return more;
    }

    /** Takes a character; false if it cannot stand there. */
    boolean take(char c) {
      return switch (place) {
        case OPEN -> {
          if (c == '{') {
            place = Place.KEY;
            yield true;
          }
          yield Character.isWhitespace(c);
        }
        case KEY -> key(c);
        case COLON -> {
          if (c == ':') {
            place = Place.VALUE;
            value.setLength(0);
            yield true;
          }
          yield Character.isWhitespace(c);
        }
        case VALUE -> value(c);
        case END -> false;
      };
    }

    private boolean key(char c) {
      if (key.isEmpty()) {
        switch (c) {
          case '"' -> key.append(c);
          case '}' -> place = Place.END;
          case ',' -> {}
          default -> {
            return Character.isWhitespace(c);
          }
        }
        return true;
      }
      key.append(c);
      if (c == '"') {
        place = Place.COLON;
        String read = key.toString();
        ofArguments = read.equals("\"arguments\"") || read.equals("\"parameters\"");
      }
      // No key that matters has an escape.
      return c != '\\';
    }

    private boolean value(char c) {
      if (value.isEmpty() && Character.isWhitespace(c)) {
        return true;
      }
      boolean plain = !quoted && depth == 0;
      if (plain && !value.isEmpty() && (c == ',' || c == '}')) {
        // Behind a number or a word, or the blanks behind anything.
        if (!ended()) {
          return false;
        }
        place = c == '}' ? Place.END : Place.KEY;
        key.setLength(0);
        return true;
      }
      if (plain && Character.isWhitespace(c)) {
        return true;
      }
      value.append(c);
      if (ofArguments && !isText()) {
        arguments.append(c);
      }
      if (quoted) {
        if (escaped) {
          escaped = false;
        } else if (c == '\\') {
          escaped = true;
        } else if (c == '"') {
          quoted = false;
        }
      } else {
        switch (c) {
          case '"' -> quoted = true;
          case '{', '[' -> depth++;
          case '}', ']' -> depth--;
          default -> {}
        }
      }
      return depth >= 0;
    }

    private boolean isText() {
      return value.charAt(0) == '"';
    }

    private boolean ended() {
      if (key.toString().equals("\"name\"")) {
        JsonNode parsed = JsonBody.parse(value.toString());
        name = parsed == null ? null : parsed.textValue();
        return name != null;
      }
      if (ofArguments) {
        argued = true;
        if (isText()) {
          // Some write the object's text.
          JsonNode parsed = JsonBody.parse(value.toString());
          String text = parsed == null ? null : parsed.textValue();
          arguments.append(text == null ? value : text);
        }
      }
      return true;
    }
  }
}
