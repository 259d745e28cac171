package dev.wardrobe.http;

import dev.wardrobe.serve.Conversation;
import dev.wardrobe.serve.Piece;
import dev.wardrobe.v1.TokenLogprob;
import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.List;
import java.util.Set;
import org.jspecify.annotations.Nullable;

/**
 * The tokens of an answer with their log-probabilities: each is told together with the text that it
 * is a part of, and those of a text that was cut off, or that ended the answer, are not told.
 */
final class TokenTrail {
  /** What OpenAI's answers have for what is as good as impossible: JSON has no infinity. */
  private static final float LOWEST = -9999;

  private final Conversation conversation;
  private final Set<Integer> ends;
  private final Deque<Told> waiting = new ArrayDeque<>();

  private boolean first = true;

  /** Bytes of the tokens, and of the text, so far. */
  private long tokenBytes;

  private long textBytes;

  private int characters;

  /**
   * A token.
   *
   * @param piece null without a tokenizer
   * @param offset where it begins, in characters (code points) of the text
   * @param end where it ends, in bytes of the text
   */
  record Told(TokenLogprob logprob, @Nullable Piece piece, int offset, long end) {
    float value() {
      return bounded(logprob.getLogprob());
    }
  }

  /**
   * @param ends tokens that end the answer and are no part of it
   */
  TokenTrail(Conversation conversation, Set<Integer> ends) {
    this.conversation = conversation;
    this.ends = Set.copyOf(ends);
  }

  static float bounded(float logprob) {
    return Math.max(logprob, LOWEST);
  }

  /**
   * Tokens that come before the answer, and their text.
   *
   * @return all of them
   */
  List<Told> prompt(List<TokenLogprob> logprobs, String text) {
    byte[] bytes = text.getBytes(StandardCharsets.UTF_8);
    List<Told> told = new ArrayList<>();
    for (TokenLogprob logprob : logprobs) {
      Piece piece = conversation.piece(logprob.getTokenId());
      byte[] own = own(piece);
      if (piece != null && piece.special() && stands(piece.bytes(), bytes)) {
        // The prompt spells it out.
        own = piece.bytes();
      }
      told.add(step(logprob, piece, own));
    }
    tokenBytes = bytes.length;
    textBytes = bytes.length;
    characters = text.codePointCount(0, text.length());
    first = true;
    return told;
  }

  private boolean stands(byte[] name, byte[] text) {
    int at = (int) Math.min(tokenBytes, text.length);
    return text.length - at >= name.length
        && ByteBuffer.wrap(text, at, name.length).equals(ByteBuffer.wrap(name));
  }

  /** More tokens and more text; returns the tokens that are in the text by now. */
  List<Told> add(List<TokenLogprob> logprobs, String text) {
    textBytes += text.getBytes(StandardCharsets.UTF_8).length;
    for (TokenLogprob logprob : logprobs) {
      if (!ends.contains(logprob.getTokenId())) {
        Piece piece = conversation.piece(logprob.getTokenId());
        waiting.add(step(logprob, piece, own(piece)));
      }
    }
    List<Told> told = new ArrayList<>();
    while (!waiting.isEmpty() && waiting.getFirst().end() <= textBytes) {
      told.add(waiting.removeFirst());
    }
    return told;
  }

  /**
   * The text has ended.
   *
   * @param cut whether a part of what the tokens say was cut off
   * @return the tokens that are left
   */
  List<Told> end(boolean cut) {
    List<Told> told = new ArrayList<>();
    for (Told each : waiting) {
      if (!cut || each.end() - length(each) < textBytes) {
        told.add(each);
      }
    }
    waiting.clear();
    return told;
  }

  private static long length(Told told) {
    Piece piece = told.piece();
    return piece == null || piece.special() ? 0 : piece.bytes().length;
  }

  private Told step(TokenLogprob logprob, @Nullable Piece piece, byte[] own) {
    tokenBytes += own.length;
    Told told = new Told(logprob, piece, characters, tokenBytes);
    for (byte each : own) {
      // All but the bytes that go on with a character.
      characters += (each & 0xc0) == 0x80 ? 0 : 1;
    }
    first = false;
    return told;
  }

  private byte[] own(@Nullable Piece piece) {
    if (piece == null || piece.special()) {
      return new byte[0];
    }
    return first ? piece.first() : piece.bytes();
  }

  /**
   * A token as a text; one that is a part of a character as its bytes.
   *
   * @param mark what comes before such bytes
   */
  static String text(@Nullable Piece piece, String mark) {
    if (piece == null) {
      return "";
    }
    try {
      return StandardCharsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(piece.bytes())).toString();
    } catch (CharacterCodingException e) {
      StringBuilder escaped = new StringBuilder(mark);
      for (byte each : piece.bytes()) {
        escaped.append("\\x%02x".formatted(each & 0xff));
      }
      return escaped.toString();
    }
  }
}
