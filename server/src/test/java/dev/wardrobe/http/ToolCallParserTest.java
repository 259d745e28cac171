package dev.wardrobe.http;

import static org.assertj.core.api.Assertions.assertThat;

import dev.wardrobe.http.ToolCallParser.Part;
import dev.wardrobe.http.ToolCallParser.Style;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

final class ToolCallParserTest {
  private static final Set<String> FUNCTIONS = Set.of("find", "send");

  /** The parts as one text, however the answer came: calls as {@code [name args]}. */
  private static String read(ToolCallParser parser, List<String> pieces) {
    List<Part> parts = new ArrayList<>();
    pieces.forEach(piece -> parts.addAll(parser.add(piece)));
    parts.addAll(parser.end());
    StringBuilder text = new StringBuilder();
    int open = -1;
    for (Part part : parts) {
      switch (part) {
        case Part.Text each -> {
          text.append(open >= 0 ? "]" : "").append(each.text());
          open = -1;
        }
        case Part.Call call -> {
          text.append(open >= 0 ? "]" : "").append('[').append(call.name()).append(' ');
          assertThat(call.index()).isEqualTo(parser.calls() == 1 ? 0 : call.index());
          assertThat(call.id()).startsWith("call_").hasSize(29);
          open = call.index();
        }
        case Part.Arguments arguments -> {
          assertThat(arguments.index()).isEqualTo(open);
          text.append(arguments.json());
        }
      }
    }
    return text.append(open >= 0 ? "]" : "").toString();
  }

  /** Reads a text whole, a character at a time, and cut in two at each place. */
  private static String everyWay(Style style, boolean several, String text) {
    String whole = read(new ToolCallParser(style, FUNCTIONS, several), List.of(text));
    assertThat(read(new ToolCallParser(style, FUNCTIONS, several), List.of(text.split(""))))
        .isEqualTo(whole);
    for (int i = 0; i <= text.length(); i++) {
      assertThat(
              read(
                  new ToolCallParser(style, FUNCTIONS, several),
                  List.of(text.substring(0, i), text.substring(i))))
          .isEqualTo(whole);
    }
    return whole;
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      quoteCharacter = '`',
      textBlock =
          """
          TAGS    | <tool_call>\\n{"name": "find", "arguments": {"a": "}\\\\"{"}}\\n</tool_call>\\n | [find {"a": "}\\\\"{"}]
          TAGS    | See:\\n\\n<tool_call>{"name":"find","arguments":{}}</tool_call> | See:[find {}]
          TAGS    | <tool_call>{"name":"find","arguments":{}}</tool_call>\\n<tool_call>{"arguments":{"b":[1,{}]},"name":"send"}</tool_call> | [find {}][send {"b":[1,{}]}]
          TAGS    | <tool_call>{"name":"find"}</tool_call>Done. | [find {}]Done.
          TAGS    | <tool_call>{"name":"find","arguments":"{\\\\"a\\\\":1}"}</tool_call> | [find {"a":1}]
          TAGS    | <tool_call>{"name":"other","arguments":{}}</tool_call> | <tool_call>{"name":"other","arguments":{}}</tool_call>
          TAGS    | a < b and <tool_calls> | a < b and <tool_calls>
          TAGS    | <tool_call>not JSON</tool_call> | <tool_call>not JSON</tool_call>
          TAGS    | <tool_call>{"name": "fi | <tool_call>{"name": "fi
          TAGS    | blanks and <tool | blanks and <tool
          TAGS    | {"name":"find","arguments":{}} | {"name":"find","arguments":{}}
          OBJECTS | {"name": "find", "parameters": {"a": 1}} | [find {"a": 1}]
          OBJECTS | {"name":"find","parameters":{"a":1}}; {"name":"send","parameters":{}} | [find {"a":1}][send {}]
          OBJECTS | {"answer": 42} | {"answer": 42}
          OBJECTS | It is 42. | It is 42.
          LIST    | [{"name": "find", "arguments": {"a": null}}, {"name": "send", "arguments": {"b": 1.5e3}}] | [find {"a": null}][send {"b": 1.5e3}]
          LIST    | [1, 2] | [1, 2]
          LIST    | [] | []
          NONE    | <tool_call>{"name":"find","arguments":{}}</tool_call> | <tool_call>{"name":"find","arguments":{}}</tool_call>
          """)
  void finds_calls(Style style, String text, String expected) {
    assertThat(everyWay(style, true, plain(text))).isEqualTo(plain(expected));
  }

  private static String plain(String text) {
    return text.replace("\\n", "\n").replace("\\\\", "\\");
  }

  @Test
  void leavesOut_furtherCalls_whereOneIsAllowed() {
    String one = "<tool_call>{\"name\":\"find\",\"arguments\":{}}</tool_call>";
    assertThat(everyWay(Style.TAGS, false, one + one)).isEqualTo("[find {}]");
  }

  @Test
  void arguments_areAllThereIs_ofOneFunction() {
    ToolCallParser parser = new ToolCallParser(Style.ARGUMENTS, Set.of("find"), false);
    assertThat(read(parser, List.of("{\"a\"", ": 1}"))).isEqualTo("[find {\"a\": 1}]");
    assertThat(parser.calls()).isEqualTo(1);
  }

  /** Each of these would take minutes if every blank were looked at again with the next. */
  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      textBlock =
          """
          TAGS    | See:~<tool_call>{"name":"find","arguments":{}}~</tool_call>~<tool_call>{"name":"send"}</tool_call>~. | See:[find {}][send {}]~.
          TAGS    | ~<tool~x~ | ~<tool~x~
          LIST    | ~[{"name":~"find",~"arguments":{}~}~,~{"name":"send"}~]~ | [find {}][send {}]~
          LIST    | ~[~] | ~[~]
          OBJECTS | ~{"name":"find","parameters":{"a":~1}}~;~{"name":"send"}~ | [find {"a":~1}][send {}]
          OBJECTS | {"~":{"~":"~"},"name":"find"} | [find {}]
          """)
  @Timeout(10)
  void manyBlanks_takeTimeOnce(Style style, String text, String expected) {
    String blanks = " ".repeat(200_000);
    ToolCallParser parser = new ToolCallParser(style, FUNCTIONS, true);
    String read = read(parser, List.of(text.replace("~", blanks)));
    assertThat(read.replace(blanks, "~")).isEqualTo(expected);
  }

  @Test
  void givesLongArgumentsInOnePiece() {
    String text = "x".repeat(1 << 20);
    ToolCallParser parser = new ToolCallParser(Style.TAGS, FUNCTIONS, true);

    List<Part> parts =
        parser.add(
            "<tool_call>{\"name\": \"find\", \"arguments\": {\"a\": \"%s\"}}</tool_call>"
                .formatted(text));

    assertThat(parts).hasSize(2);
    assertThat(parts.getLast()).isEqualTo(new Part.Arguments(0, "{\"a\": \"" + text + "\"}"));
  }
}
