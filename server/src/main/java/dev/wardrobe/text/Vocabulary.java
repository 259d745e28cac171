package dev.wardrobe.text;

import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.core.JsonToken;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.BitSet;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.jspecify.annotations.Nullable;

/**
 * What {@code tokenizer.json} says about tokens and their decoding, read once and checked before
 * the file reaches native code.
 */
final class Vocabulary {

  /** Ids from here on are refused: no model has as many, and they would size arrays. */
  private static final int MAX_TOKENS = 1 << 24;

  private static final ObjectMapper MAPPER = new ObjectMapper(JsonFiles.FACTORY);

  /** A token that the file adds to the model's own. */
  private record Added(String content, int id, boolean special) {}

  private final Path file;
  private final Map<String, Integer> ids = new HashMap<>();
  private final List<Added> added = new ArrayList<>();
  private final BitSet special = new BitSet();
  private @Nullable JsonNode decoder;
  private int modelSize;
  private int size;
  private boolean hasModel;

  private Vocabulary(Path file) {
    this.file = file;
  }

  static Vocabulary read(Path file, String json) throws TextException {
    Vocabulary vocabulary = new Vocabulary(file);
    try (JsonParser parser = JsonFiles.FACTORY.createParser(json)) {
      vocabulary.readFile(parser);
    } catch (JsonProcessingException e) {
      throw JsonFiles.malformed(file, e);
    } catch (IOException e) {
      throw new TextException(file + " cannot be read: " + e.getMessage(), e);
    }
    return vocabulary;
  }

  private void readFile(JsonParser parser) throws IOException, TextException {
    if (parser.nextToken() != JsonToken.START_OBJECT) {
      throw new TextException(file + " is not a JSON object");
    }
    while (parser.nextToken() == JsonToken.FIELD_NAME) {
      String field = parser.currentName();
      parser.nextToken();
      switch (field) {
        case "model" -> readModel(parser);
        case "added_tokens" -> readAdded(parser);
        case "normalizer", "pre_tokenizer", "post_processor", "decoder" -> {
          JsonNode part = MAPPER.readTree(parser);
          Components.check(field, part, file);
          if (field.equals("normalizer")) {
            Charsmap.checkAll(part, file);
          } else if (field.equals("decoder")) {
            decoder = part;
          }
        }
        default -> parser.skipChildren();
      }
    }
    if (parser.nextToken() != null) {
      throw new TextException(file + " goes on after its JSON object");
    }
    if (!hasModel) {
      throw new TextException(
          file + " has no 'model' with a 'vocab'; it is not a tokenizer of the tokenizers library");
    }
    number();
  }

  private void readModel(JsonParser parser) throws IOException, TextException {
    if (parser.currentToken() != JsonToken.START_OBJECT) {
      throw new TextException(file + ": 'model' is not an object");
    }
    ObjectNode rest = MAPPER.createObjectNode();
    while (parser.nextToken() == JsonToken.FIELD_NAME) {
      String field = parser.currentName();
      JsonToken value = parser.nextToken();
      if (field.equals("merges")) {
        parser.skipChildren();
        continue;
      }
      if (!field.equals("vocab")) {
        rest.set(field, MAPPER.readTree(parser));
        continue;
      }
      hasModel = true;
      ids.clear();
      if (value == JsonToken.START_OBJECT) {
        while (parser.nextToken() == JsonToken.FIELD_NAME) {
          String token = parser.currentName();
          parser.nextToken();
          ids.put(token, id(parser, token));
        }
      } else if (value == JsonToken.START_ARRAY) {
        // A unigram model: pairs of token and score, in the order of their ids.
        int next = 0;
        while (parser.nextToken() == JsonToken.START_ARRAY) {
          if (parser.nextToken() != JsonToken.VALUE_STRING) {
            throw new TextException(file + ": 'vocab' entry " + next + " is not a token and score");
          }
          ids.put(parser.getText(), checkedId(next++, "vocab"));
          while (parser.nextToken() != JsonToken.END_ARRAY) {
            parser.skipChildren();
          }
        }
      } else {
        throw new TextException(file + ": 'vocab' is neither an object nor a list");
      }
    }
    if (!rest.has("type")) {
      // Files of the library's first versions leave it out; this is how it tells them apart.
      rest.put("type", rest.has("unk_id") ? "Unigram" : "BPE");
    }
    Components.checkModel(rest, file);
  }

  private int id(JsonParser parser, String token) throws IOException, TextException {
    if (parser.currentToken() != JsonToken.VALUE_NUMBER_INT) {
      throw new TextException(file + ": the id of token '" + token + "' is not an integer");
    }
    if (parser.getNumberType() != JsonParser.NumberType.INT) {
      throw new TextException(
          file
              + ": token '"
              + token
              + "' has id "
              + parser.getText()
              + "; ids end at "
              + (MAX_TOKENS - 1));
    }
    return checkedId(parser.getIntValue(), token);
  }

  private int checkedId(int id, String token) throws TextException {
    if (id < 0 || id >= MAX_TOKENS) {
      throw new TextException(
          file + ": token '" + token + "' has id " + id + "; ids are 0 to " + (MAX_TOKENS - 1));
    }
    return id;
  }

  private void readAdded(JsonParser parser) throws IOException, TextException {
    JsonNode tokens = MAPPER.readTree(parser);
    if (tokens.isNull()) {
      return;
    }
    if (!tokens.isArray()) {
      throw new TextException(file + ": 'added_tokens' is not a list");
    }
    for (JsonNode token : tokens) {
      JsonNode content = token.get("content");
      JsonNode id = token.get("id");
      if (content == null || !content.isTextual() || id == null || !id.isInt()) {
        throw new TextException(
            file + ": an entry of 'added_tokens' has no string 'content' and integer 'id'");
      }
      added.add(
          new Added(
              content.textValue(),
              checkedId(id.intValue(), content.textValue()),
              token.path("special").asBoolean()));
    }
  }

  /**
   * Gives the added tokens their ids as the tokenizers library does: the model's own where it knows
   * the token, else the next free one, whatever the file says. A file that says otherwise is
   * refused, as its tokens would silently be other ones than the model was trained on.
   */
  private void number() throws TextException {
    Set<Integer> distinct = new HashSet<>(ids.values());
    modelSize = ids.size();
    int largest = distinct.stream().mapToInt(Integer::intValue).max().orElse(-1);
    int last = -1;
    for (Added token : added) {
      if (token.content().isEmpty()) {
        continue;
      }
      Integer known = ids.get(token.content());
      int id = known != null ? known : last >= modelSize || modelSize == 0 ? last + 1 : modelSize;
      if (id != token.id()) {
        throw new TextException(
            file
                + ": added token '"
                + token.content()
                + "' has id "
                + token.id()
                + ", but the tokenizers library numbers it "
                + id
                + "; give added tokens the ids that follow the model's vocabulary");
      }
      ids.put(token.content(), id);
      last = Math.max(last, id);
      largest = Math.max(largest, id);
      if (token.special()) {
        special.set(id);
      }
    }
    size = largest + 1;
  }

  /** One more than the largest id. */
  int size() {
    return size;
  }

  @Nullable Integer id(String token) {
    return ids.get(token);
  }

  /** Whether decoding with special tokens skipped leaves this one out. */
  boolean isSpecial(int id) {
    return special.get(id);
  }

  /**
   * What each token adds to a text.
   *
   * @throws TextException if the decoder does more than to join tokens' bytes
   */
  TokenBytes bytes() throws TextException {
    @Nullable String[] tokens = new String[size];
    ids.forEach((token, id) -> tokens[id] = special.get(id) ? null : token);
    return TokenBytes.read(tokens, decoder);
  }

  /**
   * Whether a token's text depends on few tokens around it, so that a stream may decode a window.
   * That holds for bytes put together (GPT-2's kind), for sentencepiece's kind (blanks put back,
   * bytes put together, a blank at the very start stripped), and without a decoder.
   */
  boolean decodesLocally() {
    if (decoder == null || decoder.isNull()) {
      return true;
    }
    boolean fused = false;
    List<JsonNode> steps = new ArrayList<>();
    if (decoder.path("type").asText().equals("Sequence")) {
      decoder.path("decoders").forEach(steps::add);
    } else {
      steps.add(decoder);
    }
    for (JsonNode step : steps) {
      switch (step.path("type").asText()) {
        case "ByteLevel", "Metaspace" -> {
          if (steps.size() > 1) {
            return false;
          }
        }
        case "ByteFallback" -> {
          if (fused) {
            return false;
          }
        }
        case "Replace" -> {
          if (fused || !step.path("pattern").path("String").isTextual()) {
            return false;
          }
        }
        case "Strip" -> {}
        case "Fuse" -> fused = true;
        default -> {
          return false;
        }
      }
    }
    return true;
  }
}
