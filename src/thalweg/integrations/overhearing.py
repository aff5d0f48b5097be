"""Hearing what a method returns, for libraries that tell a callback less than they know.

A `Overheard` stands in an object's own namespace in front of one of its methods: it calls the method, hands the
result on unchanged, and tells what it was. It is taken out at the end of the fit, and copies and pickles of the
object have the plain method.
"""

import sys
from collections.abc import Callable, Mapping
from typing import Any


class Overheard:
    """A method of one object, overheard.

    Args:
        owner: the object.
        name: of the method.
        tell: called as ``tell(result, args, kwargs)`` after each call; must not raise.
        tell_failure: called with the exception when the method raised one, which then goes on its way.
    """

    def __init__(
        self,
        owner: Any,
        name: str,
        tell: Callable[[Any, tuple[Any, ...], Mapping[str, Any]], None],
        tell_failure: Callable[[BaseException], None] | None = None,
    ) -> None:
        self.__wrapped__ = getattr(owner, name)
        self.__name__ = name
        self._owner, self._tell, self._tell_failure = owner, tell, tell_failure
        self._was = vars(owner).get(name)
        setattr(owner, name, self)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the method, hand on what it gives, and tell of it."""
        try:
            result = self.__wrapped__(*args, **kwargs)
        except BaseException as error:
            if self._tell_failure is not None:
                self._tell_failure(error)
            raise
        self._tell(result, args, kwargs)
        return result

    def remove(self) -> None:
        """Put the method back as it was, unless somebody else has put another in front meanwhile."""
        if vars(self._owner).get(self.__name__) is self:
            if self._was is None:
                delattr(self._owner, self.__name__)
            else:
                setattr(self._owner, self.__name__, self._was)
        self._tell, self._tell_failure = _tell_nobody, None

    def __reduce__(self) -> tuple[Any, ...]:
        return (getattr, (self._owner, self.__name__))


def _tell_nobody(result: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    return None


def caller(kind: type) -> tuple[Any, Mapping[str, Any]]:
    """The object of class ``kind`` whose method is calling, and that method's local names.

    Some libraries call their callbacks without saying who is calling.

    Returns:
        The nearest one up the stack, or (None, {}).
    """
    frame = sys._getframe(1)
    while frame.f_back is not None:
        frame = frame.f_back
        if isinstance(frame.f_locals.get("self"), kind):
            return frame.f_locals["self"], frame.f_locals
    return None, {}
