"""Answers that refuse, with the boilerplate of the assistant that wrote them."""

import re

# Only the beginning counts: an answer may mention what cannot be done.
_BEGINNING = 200
_ENGLISH = re.compile(
    r"\bas an? (?:ai|artificial intelligence)(?: language)? (?:model|assistant)\b"
    r"|\bi(?:'| a)m (?:just |only )?an ai(?: language model)?\b[^.]{0,40}\b(?:can't|cannot|unable|don't)"
    r"|^(?:i(?:'| a)m )?(?:very |so )?sorry,? (?:but )?(?:i|we) (?:can't|cannot|am unable|am not able|won't)"
    r"|^(?:i apologi[sz]e,? but |unfortunately,? )?i (?:can't|cannot|am unable to|am not able to|won't) "
    r"(?:assist|help|fulfil+|comply|provide|answer|create|generate|engage|do that)\b",
    re.IGNORECASE,
)
_KOREAN = re.compile(
    r"(?:AI|인공\s?지능)\s*(?:언어\s*)?모델(?:로서|로써|이기|이므로)"
    # A persona may also introduce itself as one.
    r"|(?:AI|인공\s?지능)\s*(?:언어\s*)?(?:모델|어시스턴트|챗봇)(?:이|입|로|으로)[^\n]{0,60}?"
    r"(?:수\s?(?:가|는|은)?\s?없|없습니다|없어요|못\s?[하합해]|어렵|불가)"
    r"|^(?:정말 |대단히 )?(?:죄송|미안|유감)[^.!?\n]{0,60}?"
    r"(?:(?:도와|도움을?|답변|제공|대답|처리|생성|작성|응답|수행|알려)[^.!?\n]{0,20}(?:수\s?(?:가|는)?\s?없|어렵|불가|못\s?합)"
    r"|요청[^.!?\n]{0,20}(?:수\s?(?:가|는)?\s?없|어렵|거절))",
    re.IGNORECASE,
)


def is_refusal(answer: str) -> bool:
    """Return whether the answer begins with a refusal in English or Korean."""
    beginning = answer[:_BEGINNING].replace("’", "'")
    return bool(_KOREAN.search(beginning) or _ENGLISH.search(beginning))
